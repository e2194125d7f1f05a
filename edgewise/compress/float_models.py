"""The source as a float model of a format: made once for all variants of the format, or anew from a fine-tuned or pruned source."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgewise.agent.ragged import AS_IS
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.config import schema
from edgewise.config.schema import Variant
from edgewise.errors import VariantFailed
from edgewise.plugins import Maker
from edgewise.proof.making import (
    compare_with_source,
    describe_agreement,
    find_tool_versions,
    lowest_db,
    make_tensors,
    translate_errors,
    unreadable_source,
    write_ports,
)

MODELS = Path("models")
TUNED = MODELS / "qat"
PRUNED = MODELS / "pruned"  # see compress.pruned_sources
PRUNED_SOURCES = PRUNED / "sources"
CARRIED = ("step_ms", "decoding", "multiply_adds")
MIN_FLOAT_SQNR_DB = 60.0  # float32 conversions reach 90 to 140 dB; half precision on the way would show as 60 to 70


def convert(name: str, form: schema.Format, source: Manifest) -> None:
    """Write models/NAME: the float model, layers.json, manifest. VariantFailed where the format cannot read the source, or where the
    outputs of the result differ from the source's."""
    make = schema.part(form.module, "make")
    with artifact.building(MODELS / name) as folder, translate_errors(make.REQUIRES, form.module):
        check_sizes(name, make, source)
        converted = make.convert(find_parent(make, source), folder, form.convert)
        artifact.write_json(folder / "layers.json", dict(converted["layers"]))
        manifest = Manifest(
            kind="format",
            format=name,
            config_key=f"formats.{name}",
            inputs=make_tensors(converted["inputs"], source.inputs),
            outputs=make_tensors(converted["outputs"], source.outputs),
            preprocessing=source.preprocessing,
            labels=source.labels,
            tools=find_tool_versions(make.REQUIRES),
        )
        write_ports(folder, manifest.inputs, manifest.outputs)
        artifact.write(folder, manifest)
        found = compare_with_source(form.module, folder, {}, MIN_FLOAT_SQNR_DB)
        details = {
            "sqnr_db": lowest_db(found),
            "agreement": describe_agreement(found),
            "notes": list(converted.get("notes", [])),
            **carry_over(source),
        }
        artifact.write(folder, dataclasses.replace(manifest, details=details))


def check_sizes(name: str, make: Maker, source: Manifest) -> None:
    """VariantFailed for a format that takes inputs of one size, where the source is fed pictures of various sizes."""
    if (source.preprocessing or {}).get("resize") == AS_IS and not getattr(make, "OPEN_SIZES", False):
        raise VariantFailed(
            f"{name} takes inputs of one size, and data.resize is {AS_IS}: with data.resize=letterbox or stretch all pictures come to"
            " data.image_size"
        )


def carry_over(manifest: Manifest) -> dict[str, Any]:
    """What a source says of the model itself, and every model that is made of it repeats."""
    return {key: manifest.details[key] for key in CARRIED if key in manifest.details}


def find_parent(make: Maker, source: Manifest) -> Path:
    """The artifact to convert from: the source where the format reads it, else the float model of the format in between."""
    if source.format in make.SOURCES:
        return MODELS / "source"
    between = MODELS / make.SOURCES[0]
    if (between / artifact.MANIFEST).exists():
        artifact.require_ok(artifact.read(between), str(between))
        return between
    raise unreadable_source(make, str(source.format))


@contextlib.contextmanager
def open_parent(variant: Variant, formats: Mapping[str, schema.Format]) -> Iterator[tuple[Path, Path]]:
    """The float model that a variant is made from, and that model's source: models/FORMAT and models/source, or, for a variant with a
    source of its own, a temporary conversion of that."""
    source = find_own_source(variant)
    if source is None:
        yield MODELS / variant.format, MODELS / "source"
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield convert_tuned(variant.format, formats, source, Path(scratch)), source


def find_own_source(variant: Variant) -> Path | None:
    """The pruned or fine-tuned source of a variant; None for one that is made of models/source. VariantFailed where it was not made."""
    if variant.prune is not None:
        pointer = artifact.require_ok(artifact.read(PRUNED / variant.name), str(PRUNED / variant.name))
        return PRUNED_SOURCES / str(pointer.details["source"])
    if variant.tuning is not None:
        artifact.require_ok(artifact.read(TUNED / variant.scheme), str(TUNED / variant.scheme))
        return TUNED / variant.scheme / variant.tuning.key
    return None


def convert_tuned(name: str, formats: Mapping[str, schema.Format], source: Path, scratch: Path) -> Path:
    """Write `source` as a float model of format `name` into `scratch`/NAME, by way of another format where this one cannot read it."""
    make, folder = schema.part(formats[name].module, "make"), scratch / name
    readable = artifact.read(source).format in make.SOURCES
    parent = source if readable else convert_tuned(make.SOURCES[0], formats, source, scratch)
    folder.mkdir()
    converted = make.convert(parent, folder, formats[name].convert)
    artifact.write_json(folder / "layers.json", dict(converted["layers"]))
    return folder
