"""Each claim of published advice on edge models, with an experiment, its command and a verdict computed from measurements.

    python -m benchmarks.article                                       all of them, on this machine
    python -m benchmarks.article convolutions power                    some
    python -m benchmarks.article --out docs/article-checked.md         all, written to the page

Run it on an otherwise idle machine: latencies of a busy one are marked, and nothing is concluded from them.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.article import running, sizes
from benchmarks.article.findings import Finding
from benchmarks.article.project import Made, Project
from edgewise.agent import machine

CLAIMS: Mapping[str, Callable[[Made], Finding]] = {
    "convolutions": sizes.convolutions,
    "transformers": sizes.transformers,
    "engine": running.engine,
    "split": running.split,
    "free": running.free,
    "power": running.check_power,
}
PACKAGES = ("torch", "transformers", "onnxruntime", "ai-edge-litert", "openvino")
COMMAND = "python -m benchmarks.article"
FORMATS = ("torch", "onnx", "tflite", "openvino")
HEAD = f"""# An article, checked

Good for: knowing which common advice on edge models holds. An article gave six pieces of it, such as "transformers shrink by 75 %". Each
was measured here, and its verdict is computed from the measurement. It holds for this machine; run the command on yours.

Written by `{COMMAND} --out docs/article-checked.md`; edit that, not this.

"""


def camera(folder: Path) -> Project:
    """A ResNet-18 for pictures of 224x224, as a camera has it (conf/studies/smart-camera.yaml)."""
    variants: dict[str, dict[str, Any]] = {f"{name}-fp32": {"format": name, "scheme": "fp32"} for name in FORMATS}
    for name, engine in (("torch", {}), ("onnx", {"arena": False}), ("tflite", {})):
        for parts in (3, 4):
            load = {"mode": "split", "parts": parts}
            variants[f"{name}-fp32-{parts}"] = {"format": name, "scheme": "fp32", "load": load, "engine": engine}
    variants["torch-int8-dynamic"] = {"format": "torch", "scheme": "int8-dynamic"}
    variants["onnx-int8-static"] = {"format": "onnx", "scheme": "int8-static", "calibration": {"samples": 16}}
    data = {"name": "surface", "samples": 160, "image_size": 224, "merge_defects": True, "defect_share": 0.5}
    return Project(folder, data, {"name": "resnet18"}, variants)


def describe_machine() -> str:
    facts = machine.facts(PACKAGES)
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    parts = [facts["board"], facts["cpu"], f"{facts['cores_allowed']} cores", f"{facts['ram_mib']} MiB", facts["system"], facts["machine"]]
    return f"Machine: {', '.join(filter(None, parts))}; {', '.join(facts['isa'])}.\nPython {facts['python']}, {packages}.\n"


def table(head: tuple[str, ...] | list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(name: str, finding: Finding) -> str:
    shown = [f"## {finding.claim}", finding.experiment, f"    {COMMAND} {name}"]
    if finding.rows:
        shown.append(table(list(finding.head), [list(row) for row in finding.rows]))
    shown.append(f"**{finding.verdict.capitalize()}**: {finding.because}")
    if finding.more:
        shown.append(f"On a board that has one:\n\n    {finding.more}")
    return "\n\n".join(shown)


def page(found: Mapping[str, Finding]) -> str:
    overview = table(["claim", "verdict", "because"], [[f.claim, f.verdict, f.because] for f in found.values()])
    return f"{HEAD}{describe_machine()}\n" + "\n\n".join([overview, *(section(name, finding) for name, finding in found.items())]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=", ".join(CLAIMS))
    parser.add_argument("--out", type=Path, help="write the page; only with all claims")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.claims if name not in CLAIMS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such claim; there are {', '.join(CLAIMS)}")
    if arguments.out and arguments.claims:
        parser.error("--out writes the page of all claims; leave their names out")
    with tempfile.TemporaryDirectory() as scratch:
        made = functools.cache(lambda: camera(Path(scratch) / "camera"))
        found = {name: CLAIMS[name](made) for name in arguments.claims or CLAIMS}
    if arguments.out:
        arguments.out.write_text(page(found), encoding="utf-8")
    else:
        print(page(found))


if __name__ == "__main__":
    main()
