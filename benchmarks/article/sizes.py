"""Claims about how much quantization shrinks models."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import example_files
from benchmarks.article import eager
from benchmarks.article.findings import PARTLY, RIGHT, UNTESTED, WRONG, Finding, format_speedup, less, megabytes
from benchmarks.article.project import Made, Project
from edgewise.artifacts import artifact

SHRINKS = 75.0  # per cent
VOCABULARIES = (2000, 30522)  # words; the second is BERT's own
EPOCHS = 6  # untrained, an encoder answers all sentences alike, and 8 bits are judged by the differences
FORMATS = ("torch", "onnx", "tflite")


def saved_bytes(module: Any) -> int:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.save(module.state_dict(), Path(folder) / "weights.pt")
        return (Path(folder) / "weights.pt").stat().st_size


def counts(module: Any) -> tuple[int, int, int]:
    """Convolutions in float, convolutions in 8 bits, linear layers in 8 bits."""
    import torch

    kinds = [type(part) for part in module.modules()]
    quantized = [kind.__name__ for kind in kinds if "quantized" in kind.__module__]
    floats = sum(issubclass(kind, torch.nn.Conv2d) and "quantized" not in kind.__module__ for kind in kinds)
    return floats, sum("Conv" in name for name in quantized), quantized.count("Linear")


CLAIM = "`quantize_dynamic` also quantizes convolutions."


def convolutions(made: Made) -> Finding:
    gone = eager.gone()
    if gone:
        return Finding(CLAIM, "The advice's own call was to be tried.", ("", "found"), [], UNTESTED, gone)
    camera = made()
    before = eager.module(camera.models / "source")
    sizes, (total, *_) = [saved_bytes(before)], counts(before)
    after = eager.quantize_dynamic(before)
    sizes.append(saved_bytes(after))
    floats, done, linear = counts(after)
    variant, measured = camera.manifest("torch-int8-dynamic"), camera.against_eager(camera.eager(quantize_dynamic=True))
    rows = [
        ["convolutions in 8 bits", f"{done} of {total}"],
        ["linear layers in 8 bits", str(linear)],
        ["weights file, MB", f"{megabytes(sizes[0])} to {megabytes(sizes[1])} ({less(*sizes)})"],
        ["share of the weights in 8 bits, read from the variant's file", f"{variant.details['covered_share']:.2%}"],
        ["times faster than before", f"{format_speedup(measured)} ({measured.grade})"],
    ]
    return Finding(
        CLAIM,
        "The advice's own call, `quantize_dynamic(model, {Linear, Conv2d}, dtype=qint8)`, on a ResNet-18; then every module is looked at, "
        "the weights are saved, and the latency is measured beside the untouched model. The variant is torch-int8-dynamic.",
        ("", "found"),
        rows,
        WRONG if done == 0 else RIGHT if floats == 0 else PARTLY,
        f"{done} of {total} convolutions were quantized, and nothing says so; the file changed by {less(*sizes)}.",
    )


def encoder(folder: Path, words: int) -> Project:
    """A BERT encoder (conf/model/bert_mini.yaml) with so many words."""
    folder.mkdir()
    example_files.write_sentences(folder / "sentences.tsv")
    variants: dict[str, dict[str, Any]] = {
        f"{form}-{s}": {"format": form, "scheme": s} for form in FORMATS for s in ("fp32", "int8-dynamic")
    }
    variants["onnx-int8-dynamic"]["reduce_range"] = True  # without it x86 without VNNI computes something else than the file holds
    data = {"name": "text_tsv", "path": str(folder / "sentences.tsv"), "length": 32}
    return Project(folder / "project", data, {"name": "bert_mini", "arguments": {"vocab_size": words}}, variants, EPOCHS)


def shrinking(project: Project, form: str) -> tuple[float, list[str]]:
    """Per cent, and the row's cells."""
    before, after = (project.manifest(f"{form}-{scheme}") for scheme in ("fp32", "int8-dynamic"))
    sizes = before.size_bytes, after.size_bytes
    floats = after.details["facts"]["weights_bytes_by_dtype"].get("float32", 0)
    cells = [megabytes(sizes[0]), megabytes(sizes[1]), less(*sizes), f"{after.details['covered_share']:.1%}", megabytes(floats)]
    return 100 * (1 - sizes[1] / sizes[0]), cells


def transformers(made: Made) -> Finding:
    with tempfile.TemporaryDirectory() as scratch:
        projects = {words: encoder(Path(scratch) / str(words), words) for words in VOCABULARIES}
        found = {(words, form): shrinking(project, form) for words, project in projects.items() for form in FORMATS}
        (parameters,) = {artifact.read(projects[VOCABULARIES[-1]].models / "source").details["parameters"]}
    rows = [[f"{words:,}", f"{form} int8-dynamic", *cells] for (words, form), (_, cells) in found.items()]
    reached = [key for key, (shrunk, _) in found.items() if round(shrunk) >= SHRINKS]
    own = [found[words, "torch"][0] for words in VOCABULARIES]
    (words, form), (best, _) = max(found.items(), key=lambda item: item[1][0])
    return Finding(
        "Transformers shrink by 75 %.",
        f"A BERT encoder of 4 layers, 256 wide, with {' and '.join(f'{count:,}' for count in VOCABULARIES)} words (the larger has "
        f"{parameters:,} parameters), as float and with int8-dynamic in three formats. Sizes are those of the files and the same in every "
        "run; 75 % would be saved if every byte of a float32 file became a quarter.",
        ("words", "variant", "MB before", "MB after", "change", "weights in 8 bits", "MB of weights left in float32"),
        rows,
        RIGHT if len(reached) == len(found) else PARTLY if reached else WRONG,
        f"`quantize_dynamic`, which the advice names, takes {min(own):.1f} to {max(own):.1f} % off, since embeddings stay float; "
        f"the most is {best:.1f} % ({form}, {words:,} words), and {len(reached)} of {len(found)} files come to {SHRINKS:g} % when rounded.",
    )
