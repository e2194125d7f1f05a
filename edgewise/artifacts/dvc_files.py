"""Files that DVC keeps: in a fresh clone stands NAME.dvc, and `dvc pull` brings NAME."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edgewise.errors import UserError

PULL = "dvc pull"


def find_pointer(path: Path) -> Path | None:
    """The file NAME.dvc of a path that does not exist, or of the folder in which it would be; None where there is none."""
    for place in (path, *path.parents):
        if os.path.exists(place):  # noqa: PTH110 - Path.exists raises for names that are too long, and where it may not look
            return None
        pointer = f"{place}.dvc"
        if os.path.isfile(pointer):  # noqa: PTH113
            return Path(pointer)
    return None


def require_pulled(section: str, settings: Mapping[str, Any], kind: type[UserError]) -> None:
    """An error of this kind for a setting that names a file which DVC keeps and which is not here. settings: of the section."""
    for key, value in settings.items():
        pointer = find_pointer(Path(value).expanduser()) if isinstance(value, str) and value else None
        if pointer:
            raise kind(f"{section}.{key}: {value} does not exist; `{pointer}` lies beside it: `{PULL}` brings it")


def missing_outputs(pointer: Path) -> list[Path]:
    """What `dvc pull` would bring for a file NAME.dvc. UserError if it is not such a file."""
    try:
        content = yaml.safe_load(pointer.read_text(encoding="utf-8"))
        places = [pointer.parent / content.get("wdir", ".") / out["path"] for out in content["outs"]]
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{pointer} is no file of `dvc add` ({type(error).__name__}): restore it from git, or delete it") from None
    return [place for place in places if not place.exists()]
