"""Where a variant is made from: the float model that is there already, or one that was trained for it."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from stages.core import artifact, config
from stages.core.variant import Variant

MODELS = Path("models")
TUNED = MODELS / "qat"


@contextlib.contextmanager
def origin(variant: Variant, formats: Mapping[str, config.Format]) -> Iterator[tuple[Path, Path]]:
    """The float model in the variant's format, and its source."""
    if variant.tuning is None:
        yield MODELS / variant.format, MODELS / "source"
        return
    artifact.require_ok(artifact.read(TUNED / variant.scheme), str(TUNED / variant.scheme))
    source = TUNED / variant.scheme / variant.tuning.key
    with tempfile.TemporaryDirectory() as scratch:
        yield converted(variant.format, formats, source, Path(scratch)), source


def converted(name: str, formats: Mapping[str, config.Format], source: Path, place: Path) -> Path:
    """A folder with `source` as a float model of format `name`, through another format where this one does not read it."""
    make, folder = config.part(formats[name].module, "make"), place / name
    read = artifact.read(source).format in make.SOURCES
    way = source if read else converted(make.SOURCES[0], formats, source, place)
    folder.mkdir()
    made = make.convert(way, folder, formats[name].convert)
    artifact.write_json(folder / "layers.json", dict(made["layers"]))
    return folder
