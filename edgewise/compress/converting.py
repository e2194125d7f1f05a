"""The source as a float model of one format, once for all variants of that format."""

import dataclasses
from pathlib import Path

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.config import schema
from edgewise.plugins import Maker
from edgewise.proof.describing import against_source, making, tensors, tool_versions, unread

MODELS = Path("models")


def way(make: Maker, source: Manifest) -> Path:
    """The artifact to convert from: the source where the format reads it, else the format that lies between."""
    between = MODELS / make.SOURCES[0]
    if source.format in make.SOURCES:
        return MODELS / "source"
    if (between / artifact.MANIFEST).exists():
        artifact.require_ok(artifact.read(between), str(between))
        return between
    raise unread(make, str(source.format))


def convert(name: str, form: schema.Format, source: Manifest) -> None:
    make = schema.part(form.module, "make")
    with artifact.building(MODELS / name) as folder, making(make.REQUIRES):
        origin = way(make, source)
        made = make.convert(origin, folder, form.convert)
        artifact.write_json(folder / "layers.json", dict(made["layers"]))
        manifest = Manifest(
            kind="format",
            format=name,
            config_key=f"formats.{name}",
            inputs=tensors(made["inputs"], source.inputs),
            outputs=tensors(made["outputs"], source.outputs),
            preprocessing=source.preprocessing,
            labels=source.labels,
            tools=tool_versions(make.REQUIRES),
        )
        artifact.write(folder, manifest)
        sqnr_db = against_source(form.module, folder, {}, FLOAT_SQNR_DB)
        artifact.write(folder, dataclasses.replace(manifest, details={"sqnr_db": sqnr_db, "notes": list(made.get("notes", []))}))


FLOAT_SQNR_DB = 60.0  # float32 conversions reach 90 to 140 dB; half precision on the way would show as 60 to 70
