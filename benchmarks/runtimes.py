"""One model in every runtime, float and in 8 bits, on this machine: the tables of docs/runtimes.md.

    python -m benchmarks.runtimes --prepare [--shared FOLDER]      make and score all variants, and measure nothing: at any time
    python -m benchmarks.runtimes                                  measure resnet18, mobilenet_v2, vit_tiny: on a quiet machine
    python -m benchmarks.runtimes --shared FOLDER                  also YOLOX-Nano, whose file and pictures lie there
    python -m benchmarks.runtimes --only mobilenet_v2 --profile smoke train.epochs=2

Each model is a run of conf/studies/runtimes.yaml; what one run has made or measured the next one takes from DVC's cache, so a run that was
stopped goes on where it was. Formats that conf/format/ does not have are left out; those whose packages are missing stand in the table with
that reason. The page docs/runtimes.md (--out) gets the tables of these models anew, each as soon as it is measured, and keeps the others.
"""

import argparse
import functools
import importlib.util
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from benchmarks.extras_sizes import needed
from edgewise.agent import machine
from edgewise.artifacts.records import Summary, VariantSummary
from edgewise.config.compose import Options
from edgewise.config.schema import part
from edgewise.study.runner import CONF, make_variants, run_study

ROOT = Path(__file__).resolve().parents[1]
STUDY = "runtimes"
NOT_COUNTED = {"numpy", "setuptools"}
MARK = "## Measured"
YOLOX = "yolox_nano"
CASES: Mapping[str, Sequence[str]] = {
    "resnet18": (),
    "mobilenet_v2": ("model.name=mobilenet_v2",),
    "vit_tiny": ("model.name=vit_tiny", "train.name=transformer"),
    YOLOX: (
        *("model.name=onnx_file", "model.path={shared}/pretrained/yolox/yolox_nano.onnx", "task.name=detection"),
        *("++task.decoding={{head:yolox,outputs:{{predictions:output}},channels_first:false,strides:[8,16,32]}}",),
        *(
            "data.name=yolo",
            "data.path={shared}/coco128/data.yaml",
            "++data.image_size=416",
            "++data.channels=3",
            "++data.channels_last=false",
        ),
        *("++data.range=[0,255]", "++data.channel_order=bgr", "++data.resize=letterbox", "++data.pad_anchor=corner"),
        "++data.splits={{validation:0.1,calibration:0.3,test:0.6}}",
    ),
}
COLUMNS = "| variant | MB | covered | SQNR, dB | score | ratio to onnx-fp32 | p50, ms | load, ms | first, ms | peak above import, MB |"
RUNTIME_COLUMNS = "| format | package | wheels, MB | import, MB resident | reads | schemes | in parts | times by operator |"
MEMORY_OF_IMPORT = """
import importlib, os, sys
import numpy
def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
run = importlib.import_module(sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
print(resident() - before)
"""


# the runtimes themselves


def list_packages(name: str) -> list[tuple[str, str]]:
    """(import name, package) of all that a format needs on a device beside numpy, the runtime last."""
    run = part(f"edgewise.formats.{name}", "run")
    companions = [(module, package) for module, (package, _) in getattr(run, "COMPANIONS", {}).items()]
    return [*companions, (run.RUNTIME, run.PACKAGE)]


def is_installed(name: str) -> bool:
    try:
        return all(importlib.util.find_spec(module.partition(".")[0]) for module, _ in list_packages(name))
    except ModuleNotFoundError:
        return False


def wheel_bytes(packages: Sequence[str]) -> int:
    """Of the packages and all that they need, numpy apart, as their wheels have them."""
    pending, seen = list(packages), set(packages)
    while pending:
        requirements = metadata.distribution(pending.pop()).requires or []
        more = {name for name, _ in needed(requirements, frozenset())} - seen - NOT_COUNTED
        found = {name for name in more if machine.find_version(name)}
        seen |= found
        pending += found
    return sum(distribution_bytes(name) for name in seen)


@functools.cache
def distribution_bytes(package: str) -> int:
    """Each file deflated, as in a wheel. Some seconds for the largest."""
    files = metadata.distribution(package).files or ()
    return sum(deflated_bytes(Path(str(path.locate()))) for path in files if "__pycache__" not in path.parts)


def deflated_bytes(path: Path) -> int:
    if not path.is_file():
        return 0
    packer, size = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS), 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            size += len(packer.compress(block))
    return size + len(packer.flush())


def resident_bytes(name: str) -> int:
    """What importing a format's runtime adds to a process that has Python and numpy."""
    modules = [module for module, _ in list_packages(name)]
    command = [sys.executable, "-c", MEMORY_OF_IMPORT, f"edgewise.formats.{name}.run", *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def describe_runtime(name: str) -> str:
    packages = [package for _, package in list_packages(name)]
    make, split, profile = (part(f"edgewise.formats.{name}", which) for which in ("make", "split", "profile"))
    told = [f"{package} {machine.find_version(package)}" for package in packages]
    return row(
        *(name, ", ".join(told), megabytes(wheel_bytes(packages)), f"{resident_bytes(name) / 1e6:.0f}"),
        *(", ".join(make.SOURCES), ", ".join(make.SCHEMES)),
        *("no" if split.UNSUPPORTED else "yes", "no" if profile.UNSUPPORTED else "yes"),
    )


def runtimes_table(formats: Sequence[str]) -> str:
    rows = [describe_runtime(name) for name in formats if is_installed(name)]
    return "\n".join([RUNTIME_COLUMNS, "|" + " --- |" * (RUNTIME_COLUMNS.count("|") - 1), *rows])


# the models in them


def study_overrides(label: str, shared: Path | None, profile: str | None, known: Sequence[str], more: Sequence[str]) -> list[str]:
    """The choices of one model over those of the study. profile: of conf/bench/, in place of the study's bench as a whole. known: the
    formats of conf/format/."""
    absent = [f"~variants.{name}" for name, chosen in read_variants().items() if chosen["format"] not in known]
    own = [f"~bench.{key}" for key in read_study()["bench"] if key != "name"]
    return [*(text.format(shared=shared) for text in CASES[label]), *([f"bench.name={profile}", *own] if profile else []), *absent, *more]


def read_study() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / CONF / f"{STUDY}.yaml").read_text(encoding="utf-8"))
    return found


def read_variants() -> dict[str, dict[str, str]]:
    """The variants of the study, by name: format and scheme."""
    return dict(read_study()["variants"])


def table(summary: Summary) -> str:
    """One row for each variant, in the order of the study; a failed one with its reason."""
    metric = summary.primary_metric
    title = metric.title if metric else "score"
    head = COLUMNS.replace("score", title)
    rows = [describe(name, found) if found.ok else f"| {name} | {found.reason} |" for name, found in summary.variants.items()]
    return "\n".join([head, "|" + " --- |" * (head.count("|") - 1), *rows])


def describe(name: str, found: VariantSummary) -> str:
    latency, quality, memory = found.latency, found.quality, found.memory
    low, high = latency.ratio_ci95 or (None, None)
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return row(
        *(name, megabytes(found.file.size_bytes), percent(found.proof.covered_share), number(found.proof.sqnr_to_source_db, 1)),
        *(number(quality.score, 4), f"{number(latency.ratio_to_reference, 3)}{interval}", number(latency.p50_ms, 2)),
        *(number(latency.load_ms, 0), number(latency.first_inference_ms, 1)),
        megabytes(memory.peak_rss_above_baseline_bytes if memory else None),
    )


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


# the page


def split_sections(text: str) -> dict[str, str]:
    """Heading -> what stands below it, of the headings of the third level."""
    pieces = re.split(r"^### (.+)\n", text, flags=re.M)[1:]
    return {heading: content.strip() for heading, content in zip(pieces[::2], pieces[1::2], strict=True)}


def write_page(path: Path, made: Mapping[str, str]) -> None:
    """Replace the sections that were made; keep the others and the text before the mark."""
    head, _, measured = path.read_text(encoding="utf-8").partition(MARK)
    sections = {**split_sections(measured), **made}
    order = ["The runtimes", *CASES]
    body = "\n\n".join(f"### {name}\n\n{sections[name]}" for name in order if name in sections)
    path.write_text(f"{head.rstrip()}\n\n{MARK}\n\n{body}\n", encoding="utf-8")


def circumstances(profile: str | None) -> str:
    """In what the figures were measured: a busy machine makes them worth less, and that is said."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    loaded = f"; the machine was busy with other work (load {load:.1f} on {cores} cores): do not rely on the times" if load > cores else ""
    return f"{machine.facts(())['cpu']}, one thread, bench profile {describe_bench(profile)}{loaded}."


def describe_bench(profile: str | None) -> str:
    own = read_study()["bench"]
    changed = ", ".join(f"{key} {value}" for key, value in own.items() if key != "name")
    return f"`{profile or own['name']}`" + (f" with {changed}" if changed and not profile else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/runtimes.md")
    parser.add_argument("--only", nargs="*", choices=CASES, help="these models; without names, the table of the runtimes alone")
    parser.add_argument("--shared", type=Path, help=f"where pretrained/ and coco128/ lie, for {YOLOX}")
    parser.add_argument("--profile", help="of conf/bench/, in place of the bench of the study")
    parser.add_argument("--prepare", action="store_true", help="make and score the variants, and measure nothing")
    parser.add_argument("overrides", nargs="*", help="further choices, as for `edgewise study`")
    arguments = parser.parse_intermixed_args()
    formats = Options(ROOT / "conf").names("format")
    chosen = [label for label in CASES if label != YOLOX or arguments.shared] if arguments.only is None else arguments.only
    choices = {label: study_overrides(label, arguments.shared, arguments.profile, formats, arguments.overrides) for label in chosen}
    if arguments.prepare:
        for overrides in choices.values():
            make_variants(ROOT, STUDY, overrides)
        return
    write_page(arguments.out, {"The runtimes": runtimes_table(formats)})
    for label, overrides in choices.items():
        summary = run_study(ROOT, STUDY, overrides)
        write_page(arguments.out, {label: f"{circumstances(arguments.profile)}\n\n{table(summary)}"})


if __name__ == "__main__":
    main()
