"""Answer with the model of this bundle: one line of JSON for each sample, on stdout.

    python infer.py picture.jpg more.png folder     pictures, and all files in a folder
    python infer.py picture.jpg --draw out          the same, and each picture drawn with its boxes or classes
    python infer.py --frames 640x480x3              raw frames from stdin, uint8 RGB (x1: grey), such as ffmpeg's -f rawvideo
    python infer.py "a sentence"                    where the model takes text; - : one sentence a line from stdin
    python infer.py windows.npy                     where it takes arrays: samples [n, ...], or .npz with its inputs by name
    python infer.py --stream                        where it carries state: the steps of one sequence from stdin, as raw values
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
import itertools
import json
import os
import re
import shlex
import sys
from importlib import metadata
from typing import Any, Callable, Iterator, List, Mapping, Optional, Set, Tuple, Union

HERE = os.path.dirname(os.path.abspath(__file__))
DRAWN = ("boxes", "map")  # answers that can be drawn
CHECKSUMS, SETTINGS, MODEL, CODE = "checksums.json", "bundle.json", "model", "code"
CHUNK_BYTES = 1 << 20


class BundleError(ValueError):
    """What the user can fix, in one line."""


def main() -> None:
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.join(HERE, CODE))
    for stream in (sys.stdout, sys.stderr):  # whatever the locale; a broken character in a file name is escaped as in JSON
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        run(sys.argv[1:])
    except ValueError as error:  # BundleError, or what a reader cannot take
        print_error(error)
        sys.exit(2)
    except BrokenPipeError:  # the reader of stdout has closed it
        os._exit(0)


def run(given: List[str]) -> None:
    parser = argparse.ArgumentParser(prog="infer.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="*")
    parser.add_argument("--frames", metavar="WIDTHxHEIGHTx3", help="read raw frames of this size from stdin")
    parser.add_argument("--stream", action="store_true", help="read the steps of one sequence from stdin, of a model that carries state")
    parser.add_argument("--draw", metavar="FOLDER", help="also write each picture with the boxes or the classes that were found")
    parser.add_argument("--check", action="store_true", help="verify only")
    arguments = parser.parse_args(given)
    verify_files()
    settings = read_json(SETTINGS)
    check_packages(settings["requires"])
    if arguments.check:
        print(f"{settings['variant']}: all files are as bundled, all packages fit")
        return
    if not arguments.samples and not arguments.frames and not arguments.stream:
        raise BundleError("no samples: name a file or a folder; see --help for other ways")
    if not print_answers(iterate_answers(arguments, settings)):
        raise BundleError(f"no samples: there is no file in {', '.join(arguments.samples) or 'stdin'}")


def read_json(name: str) -> Any:
    try:
        with open(os.path.join(HERE, name), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise BundleError(f"{name}: {error}; copy the whole bundle again") from None


def verify_files() -> None:
    """BundleError unless every file has the content that was bundled, and model and code hold no other files."""
    checksums = read_json(CHECKSUMS)
    for name, wanted in checksums.items():
        try:
            found = sha256(os.path.join(HERE, *name.split("/")))
        except OSError as error:
            raise BundleError(f"{name}: {error.strerror}; copy the whole bundle again") from None
        if found != wanted:
            raise BundleError(f"{name}: damaged: its sha256 is {found[:12]}..., bundled was {wanted[:12]}...; copy the whole bundle again")
    unknown = sorted({name for folder in (MODEL, CODE) for name in list_files(folder)} - set(checksums))
    if unknown:
        raise BundleError(f"{unknown[0]}: not a file of this bundle; remove it, or copy the whole bundle into an empty folder")


def sha256(path: str) -> str:
    """The sha256 of a file, read piece by piece: a model may take most of the memory that a device has."""
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
            found.update(chunk)
    return found.hexdigest()


def list_files(folder: str) -> Iterator[str]:
    """The files of a folder of the bundle, by their names in checksums.json, without hidden ones and __pycache__."""
    for place, folders, names in os.walk(os.path.join(HERE, folder)):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (os.path.relpath(os.path.join(place, name), HERE).replace(os.sep, "/") for name in names if not name.startswith("."))


def check_packages(requires: Mapping[str, Mapping[str, str]]) -> None:
    """BundleError where packages are missing or of other releases than the bundle runs with; it names the first, and what installs all."""
    unfit = {package: found for package, wanted in requires.items() if not fits(found := find_release(package), wanted)}
    if not unfit:
        return
    package, found = next(iter(unfit.items()))
    wanted = requires[package]
    needed = f"this bundle needs {package} >= {wanted['from']} and < {wanted['below']} (measured with {wanted['measured']})"
    ranges = [f"{name}>={requires[name]['from']},<{requires[name]['below']}" for name in unfit]
    advice = " ".join(map(shlex.quote, (sys.executable or "python3", "-m", "pip", "install", *ranges)))
    if found is None:
        raise BundleError(f"{package} is not installed: {needed}; install it with: {advice}")
    raise BundleError(f"{package} {found} is installed: {needed}; change it with: {advice}")


def find_release(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def fits(found: Optional[str], wanted: Mapping[str, str]) -> bool:
    return found is not None and parse_release(wanted["from"]) <= parse_release(found) < parse_release(wanted["below"])


def parse_release(version: str) -> Tuple[int, ...]:
    """The numbers at the start of a version, without trailing zeros (PEP 440: 1.19 and 1.19.0 are the same release):
    1.19.2+cpu -> (1, 19, 2), 2026.0.0rc1 -> (2026,)."""
    numbers = [int(number) for number in re.findall(r"\d+", re.match(r"[\d.]*", version).group())]  # type: ignore[union-attr]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def iterate_answers(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> Iterator[Union[str, ValueError]]:
    """Yield a line of JSON for each sample, or what is wrong with it."""
    from edgewise.agent import feeds, sessions

    try:
        session = sessions.load(importlib.import_module(settings["runner"]), os.path.join(HERE, MODEL), settings["engine"])
    except Exception as error:  # each runtime has errors of its own
        raise BundleError(f"the model cannot be loaded: {describe(error)}; see card.md for the device it was measured on") from error
    run, samples = session.run, feeds.read_samples(arguments.samples, arguments.frames, settings, HERE)
    drawings = None if arguments.draw is None else Drawings(arguments.draw)
    if arguments.stream:
        if not getattr(session, "stateful", False):
            raise BundleError("--stream: this model carries no state from step to step; give its samples as files")
        run, samples = session.step, feeds.read_steps(settings["inputs"])
    for name, sample in samples:
        yield sample if isinstance(sample, ValueError) else make_line(run, name, sample, settings, drawings)


def describe(error: Exception) -> str:
    """An error of another library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def make_line(
    run: Callable[[Any], Any], name: str, sample: Any, settings: Mapping[str, Any], drawings: Optional[Drawings] = None
) -> Union[str, BundleError]:
    """The answer for one sample, a feeds.Given, as a line of JSON. run: its outputs by name, from its feeds."""
    from edgewise.agent.sample_answer import answer_sample

    try:
        outputs, geometry = run(sample.feeds), find_geometry(sample.picture, settings)
        found = answer_sample(outputs, settings["answer"], settings["labels"], geometry)
        if drawings is not None:
            draw_answer(drawings, name, sample.picture, outputs, found, settings)
    except BundleError as error:
        return error
    except Exception as error:  # each runtime has errors of its own, and the next sample may fit
        return BundleError(f"{name}: the model gives no answer: {describe(error)}")
    try:
        return json.dumps({"sample": name, **found}, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return BundleError(f"{name}: the model's answer holds NaN or infinity; look at the values that you give it")


def find_geometry(picture: Any, settings: Mapping[str, Any]) -> Any:
    """How the picture lies in the model's input; None where the sample is no picture, or the answer does not need it."""
    if picture is None or settings["answer"]["answer"] not in DRAWN:
        return None
    from edgewise.agent.geometry import Geometry

    return Geometry.of(settings["preprocessing"], *picture.shape[:2])


class Drawings:
    """The files in the folder of --draw: street.png, and street-2.png for the next picture that is called street."""

    def __init__(self, folder: str):
        self.folder = folder
        self._taken: Set[str] = set()

    def place(self, name: str) -> str:
        """The path for the drawing of a sample, without its suffix."""
        stem = re.sub(r"[^\w.-]+", "-", os.path.splitext(os.path.basename(name))[0])
        numbered = (f"{stem}-{number}" if number > 1 else stem for number in itertools.count(1))
        free = next(place for place in numbered if place not in self._taken)
        self._taken.add(free)
        return os.path.join(self.folder, free)


def draw_answer(drawings: Drawings, name: str, picture: Any, outputs: Any, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write the picture with what was found in it, NAME.png, and of a map also the class numbers, NAME.mask.png."""
    from edgewise.agent import drawing, sample_answer

    spec = settings["answer"]
    if picture is None or spec["answer"] not in DRAWN:
        raise BundleError("--draw: this model answers with neither boxes nor a map; leave it out")
    if spec["answer"] == "boxes":
        images = {".png": drawing.draw_objects(picture, found["objects"], settings["labels"])}
    else:
        class_map = sample_answer.map_classes(outputs, spec, find_geometry(picture, settings))
        images = {".png": drawing.draw_map(picture, class_map), ".mask.png": drawing.to_image(class_map[..., None]).convert("L")}
    try:
        os.makedirs(drawings.folder, exist_ok=True)
        place = drawings.place(name)
        for suffix, image in images.items():
            image.save(place + suffix)
    except OSError as error:
        raise BundleError(f"{name}: cannot be drawn: {error.strerror} ({error.filename}); name another folder in --draw") from None


def print_answers(found: Iterator[Union[str, ValueError]]) -> int:
    """Print each answer on stdout and each error on stderr. Returns the number of answers; exits with 2 if there was an error."""
    answered = errors = 0
    for line in found:
        if isinstance(line, ValueError):
            errors += 1
            print_error(line)
        else:
            answered += 1
            print(line, flush=True)
    if errors:
        sys.exit(2)
    return answered


def print_error(error: Exception) -> None:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
