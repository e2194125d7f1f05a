"""Answer with the model of this bundle: one line of JSON for each sample, on stdout.

    python infer.py picture.jpg more.png folder     pictures, and all files in a folder
    python infer.py --frames 640x480x3              raw frames from stdin, uint8 RGB (x1: grey), such as ffmpeg's -f rawvideo
    python infer.py "a sentence"                    where the model takes text; - : one sentence a line from stdin
    python infer.py windows.npy                     where it takes arrays: samples [n, ...], or .npz with its inputs by name
    python infer.py --check                         verify the files and the installed packages, answer nothing

Every start verifies all files against checksums.json and the packages against bundle.json. A sample that cannot be read or
answered gets one line on stderr, `error: NAME: why`, and the others are answered all the same. Exit code 0 where every sample was
answered, 2 where one was not or nothing could be; what is wrong stands on stderr, one line each.
Standard library, numpy, Pillow for pictures, tokenizers for text, and the one runtime; Python 3.9 or newer.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import sys
from importlib import metadata
from typing import Any, Iterator, List, Mapping, Tuple, Union

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKSUMS, SETTINGS, MODEL, CODE = "checksums.json", "bundle.json", "model", "code"


class Wrong(ValueError):
    """What the user can understand and mend, in one line."""


def read_json(name: str) -> Any:
    try:
        with open(os.path.join(HERE, name), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise Wrong(f"{name}: {error}; copy the whole bundle again") from None


def verify() -> None:
    """Every file has the content that was bundled, and beside model and code lies nothing of another bundle."""
    checksums = read_json(CHECKSUMS)
    for name, wanted in checksums.items():
        try:
            with open(os.path.join(HERE, *name.split("/")), "rb") as stream:
                found = hashlib.sha256(stream.read()).hexdigest()
        except OSError as error:
            raise Wrong(f"{name}: {error.strerror}; copy the whole bundle again") from None
        if found != wanted:
            raise Wrong(f"{name}: damaged: its sha256 is {found[:12]}..., bundled was {wanted[:12]}...; copy the whole bundle again")
    strangers = sorted({name for folder in (MODEL, CODE) for name in names_below(folder)} - set(checksums))
    if strangers:
        raise Wrong(f"{strangers[0]}: not a file of this bundle; remove it, or copy the whole bundle into an empty folder")


def names_below(folder: str) -> Iterator[str]:
    """The files of a folder of the bundle, by their names in checksums.json; without hidden ones and what Python compiles."""
    for place, folders, names in os.walk(os.path.join(HERE, folder)):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (os.path.relpath(os.path.join(place, name), HERE).replace(os.sep, "/") for name in names if not name.startswith("."))


def release(version: str) -> Tuple[int, ...]:
    """The numbers at the beginning of a version, without the zeros at their end (PEP 440: 1.19 and 1.19.0 are one release):
    1.19.2+cpu -> (1, 19, 2), 2026.0.0rc1 -> (2026,)."""
    numbers = [int(number) for number in re.findall(r"\d+", re.match(r"[\d.]*", version).group())]  # type: ignore[union-attr]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_packages(requires: Mapping[str, Mapping[str, str]]) -> None:
    advice = f"{os.path.basename(sys.executable)} -m pip install -r requirements.txt"
    for package, wanted in requires.items():
        said = f"this bundle needs {package} >= {wanted['from']} and < {wanted['below']} (measured with {wanted['measured']})"
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise Wrong(f"{package} is not installed: {said}; install it with: {advice}") from None
        if not release(wanted["from"]) <= release(found) < release(wanted["below"]):
            raise Wrong(f"{package} {found} is installed: {said}; change it with: {advice}")


def answers(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> Iterator[Union[str, ValueError]]:
    """A line of JSON for each sample, or what is wrong with it."""
    from edgewise.agent import feeds, sessions

    runner = importlib.import_module(settings["runner"])
    session = sessions.load(runner, os.path.join(HERE, MODEL), settings["engine"])
    for name, sample in feeds.samples(arguments.samples, arguments.frames, settings, HERE):
        yield sample if isinstance(sample, ValueError) else line(session, name, sample, settings)


def line(session: Any, name: str, sample: Mapping[str, Any], settings: Mapping[str, Any]) -> Union[str, Wrong]:
    """The answer for one sample as a line of JSON."""
    from edgewise.agent import answers as answer

    try:
        outputs = next(iter(session.run(sample).values()))
        found = answer.answer(outputs, settings["answer"], settings["labels"])[0]
    except Exception as error:  # each runtime has errors of its own, and the next sample may fit
        return Wrong(f"{name}: the model gives no answer: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    try:
        return json.dumps({"sample": name, **found}, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return Wrong(f"{name}: the model's answer holds NaN or infinity; look at the values that you give it")


def run(given: List[str]) -> None:
    parser = argparse.ArgumentParser(prog="infer.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="*")
    parser.add_argument("--frames", metavar="WIDTHxHEIGHTx3", help="read raw frames of this size from stdin")
    parser.add_argument("--check", action="store_true", help="verify only")
    arguments = parser.parse_args(given)
    verify()
    settings = read_json(SETTINGS)
    check_packages(settings["requires"])
    if arguments.check:
        print(f"{settings['variant']}: all files are as bundled, all packages fit")
        return
    if not arguments.samples and not arguments.frames:
        raise Wrong("nothing to answer: name a file or a folder; --help says what else")
    if not tell(answers(arguments, settings)):
        raise Wrong(f"nothing to answer: there is no file in {', '.join(arguments.samples) or 'stdin'}")


def tell(found: Iterator[Union[str, ValueError]]) -> int:
    """Print each answer on stdout, each error on stderr. Number of answers; exit with 2 where there was an error."""
    answered = errors = 0
    for each in found:
        if isinstance(each, ValueError):
            errors += 1
            complain(each)
        else:
            answered += 1
            print(each, flush=True)
    if errors:
        sys.exit(2)
    return answered


def complain(error: Exception) -> None:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


def main() -> None:
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.join(HERE, CODE))
    for stream in (sys.stdout, sys.stderr):  # whatever the locale; half a character in a file's name is escaped as JSON escapes it
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        run(sys.argv[1:])
    except ValueError as error:  # Wrong, or what a reader or the runtime cannot take
        complain(error)
        sys.exit(2)
    except BrokenPipeError:  # the reader had enough
        os._exit(0)


if __name__ == "__main__":
    main()
