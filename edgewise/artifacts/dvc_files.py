"""Files that DVC keeps: in a fresh clone stands NAME.dvc, and `dvc pull` brings NAME."""

import hashlib
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


def require_unspoiled(section: str, settings: Mapping[str, Any], kind: type[UserError]) -> None:
    """An error of this kind for a setting that names a file which was written over in place while it was a link into DVC's cache: the
    cache has the new bytes under the old digest then, and gives them out for the old ones. Only root can do so, as in a container."""
    for key, value in settings.items():
        path = Path(value).expanduser() if isinstance(value, str) and value else None
        if path and (spoiled := find_spoiled(path)):
            raise kind(
                f"{section}.{key}: {value} was written over as a link into DVC's cache, whose copy of the old file is spoiled now. "
                f"Copy the new file to another name; delete {value}, and {spoiled} in the folder that `dvc cache dir` names; `{PULL}` then "
                f"brings the old one. Before you replace a file that DVC keeps: `dvc unprotect {value}`"
            )


def find_spoiled(path: Path) -> str | None:
    """The place in DVC's cache that has other bytes than its digest says, since the file that is linked to it was written over."""
    pointer = Path(f"{path}.dvc")
    if not pointer.is_file() or not path.is_file() or (path.stat().st_nlink == 1 and not path.is_symlink()):
        return None
    known = [out["md5"] for place, out in read_outputs(pointer) if place.name == path.name and out.get("hash") == "md5" and "md5" in out]
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    return f"files/md5/{known[0][:2]}/{known[0][2:]}" if known and found not in known else None


def missing_outputs(pointer: Path) -> list[Path]:
    """What `dvc pull` would bring for a file NAME.dvc. UserError if it is not such a file."""
    return [place for place, _ in read_outputs(pointer) if not place.exists()]


def read_outputs(pointer: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Where each output of a file NAME.dvc lies, and what stands there about it. UserError if it is not such a file."""
    try:
        content = yaml.safe_load(pointer.read_text(encoding="utf-8"))
        return [(pointer.parent / content.get("wdir", ".") / out["path"], out) for out in content["outs"]]
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{pointer} is no file of `dvc add` ({type(error).__name__}): restore it from git, or delete it") from None
