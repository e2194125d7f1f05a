"""From a file, and the user's data if there is any, to the sections of params.yaml: guessed, then tried on the file itself."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgewise.artifacts.targets import BOXES, CLASSES
from edgewise.data import image_folder
from edgewise.data.encoders import PORT_TYPES
from edgewise.errors import ModelError
from edgewise.inspect import detectors_choice, picture_settings, trial_run, user_data
from edgewise.inspect.detectors_choice import Choice
from edgewise.inspect.meanings import AUDIO, IDS, IMAGE, Guesses, guess_ports, name_scores, picture_sides
from edgewise.inspect.params_text import Section
from edgewise.inspect.picture_settings import GUESSED, find_scaling
from edgewise.inspect.sections import (
    DETECTION,
    MISSING,
    USUAL,
    Formats,
    Known,
    suggest_data,
    suggest_model,
    suggest_task,
    suggest_variants,
    suit_detectors,
)
from edgewise.inspect.trial_run import Tried
from edgewise.sources.inspection import Inspection

SIDES = ((320, 320), (640, 640), (48, 192), (48, 320), (32, 100), (96, 96))  # of pictures whose size the file leaves open


STAND_IN = 1  # in the place of a constant that only the user knows, while a file is tried
LENGTHS = (128, 16, 1)  # of other open axes
TEXT = {"object": "strings", "string": "strings"}  # as onnx and others name their type


@dataclass(frozen=True)
class Asked:
    """What the user asks about. conf: the options of his project. run: whether the file is run to see what it takes and gives."""

    path: Path
    importer: ModuleType
    conf: Path
    formats: Formats
    data: str | None = None
    schemes: tuple[str, ...] = USUAL
    run: bool = True


def suggest(found: Inspection, asked: Asked) -> tuple[dict[str, Section], list[str]]:
    """The sections by name, and notes on how they were found.

    ConfigError if none of the schemes is possible, MissingExtra if no format is installed that reads the file, ModelError for an input of
    a type that cannot be fed, DataError for data that is of no known kind, or that no setting makes fit.
    """
    variants = suggest_variants(found, asked.importer.FORMAT, asked.formats, asked.schemes)
    guesses = guess_ports(found)
    check_types(asked.path, guesses)
    user = user_data.recognize(Path(asked.data)) if asked.data else None
    tokenizer = user_data.find_tokenizer(asked.path, Path(asked.data)) if asked.data else None
    open_sizes = getattr(asked.importer, "OPEN_SIZES", False)
    known = Known(user, tokenizer=tokenizer, names=found.label_names, path=str(asked.path), open_sizes=open_sizes)
    known, tried = try_sizes(found, asked, guesses, known)
    notes = [f"data           {user.words}"] if user else []
    if tried.outputs:
        known = dataclasses.replace(known, outputs=shapes_of(tried))
        known = dataclasses.replace(known, choice=find_choice(found, asked, guesses, known, tried))
    notes += [f"missing        {name}: only you know it; give it in the place of VALUE" for name in missing_values(guesses)]
    notes += [f"tried          with {STAND_IN} in the place of VALUE"] if tried.outputs and missing_values(guesses) else []
    notes += describe_trial(tried)
    sections = assemble(found, asked, guesses, known)
    if sections["task"].values["name"] == DETECTION:
        variants = suit_detectors(variants, asked.formats)
    return sections | {"reference": Section(next(iter(variants.values))), "variants": variants}, notes


def missing_values(guesses: Guesses) -> list[str]:
    """The constants that the user must give."""
    return [f"model.inputs.{name}" for name, value in guesses.constants.items() if value is None]


def check_types(path: Path, guesses: Guesses) -> None:
    """ModelError for an input of a type that no data set has, such as strings."""
    odd = next((guess for guess in guesses.fed if guess.dtype not in PORT_TYPES), None)
    if odd is not None:
        kind = TEXT.get(odd.port.dtype, odd.port.dtype)
        raise ModelError(
            f"{path}: {odd.port.name} takes {kind}, which is not among the types that data can have: {', '.join(PORT_TYPES)};"
            " export only the part of the model that takes numbers"
        )


def assemble(found: Inspection, asked: Asked, guesses: Guesses, known: Known) -> dict[str, Section]:
    """data, task and model."""
    data, axes = suggest_data(guesses, known)
    task, settings = suggest_task(guesses, known)
    model = suggest_model(found, guesses, settings_of(asked.importer), axes)
    given = dataclasses.replace(data, values={**data.values, **settings})
    return {"data": given, "task": task, "model": model}


def settings_of(importer: ModuleType) -> frozenset[str]:
    return frozenset(each.name for each in dataclasses.fields(importer.Settings))


def try_sizes(found: Inspection, asked: Asked, guesses: Guesses, known: Known) -> tuple[Known, Tried]:
    """Run the file with the suggested data; where it leaves sizes open, with usual ones until one works."""
    if not asked.run or trial_run.find_opener(asked.importer) is None:
        return known, Tried()
    first = try_once(found, asked, guesses, known)
    if first.error is None:
        return known, first
    for changes in list_fills(guesses, known):
        now = dataclasses.replace(known, **changes)
        tried = try_once(found, asked, guesses, now)
        if tried.error is None:
            return now, tried
    return known, Tried() if missing_values(guesses) else first  # which may fail for the value alone


def list_fills(guesses: Guesses, known: Known) -> Iterator[dict[str, Any]]:
    """Other usual sizes in the place of open ones, and ids that a small vocabulary has."""
    pictures = [guess for guess in guesses.fed if guess.meaning == IMAGE]
    if any(None in picture_sides(guess) for guess in pictures):
        yield from ({"sides": sides} for sides in SIDES)
    if known.user is None and any(guess.meaning == IDS for guess in guesses.fed):
        yield {"most_id": 1}
    if known.user is None and any(None in guess.sizes for guess in guesses.fed if guess.meaning not in (IMAGE, AUDIO)):
        yield from ({"length": length} for length in LENGTHS)


def try_once(found: Inspection, asked: Asked, guesses: Guesses, known: Known) -> Tried:
    sections = assemble(found, asked, guesses, known)
    items, settings = trial_run.read_items(sections["data"].values, asked.conf)
    feeds = trial_run.make_feeds(items, settings)
    if not feeds:
        return Tried()
    model = dict(sections["model"].values)
    if missing_values(guesses):
        model["inputs"] = {name: STAND_IN if given == MISSING else given for name, given in model["inputs"].items()}
    return trial_run.run(asked.importer.__name__, asked.path, model, [feeds])[0]


def shapes_of(tried: Tried) -> dict[str, tuple[int | None, ...]]:
    return {name: (None, *array.shape[1:]) for name, array in tried.outputs.items()}


def describe_trial(tried: Tried) -> Iterator[str]:
    """What a run gave, output by output."""
    if tried.error:
        yield f"warning        it does not run with these inputs: {tried.error}"
    for name, array in tried.outputs.items():
        words = f"; {name_scores(array)}, by their values" if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f" else ""
        limits = f" from {array.min():.4g} to {array.max():.4g}" if array.size and array.dtype.kind in "fiu" else ""
        yield f"tried          {name} {[None, *array.shape[1:]]} {array.dtype}{limits}{words}".replace("None", "any")


def find_choice(found: Inspection, asked: Asked, guesses: Guesses, known: Known, tried: Tried) -> Choice | None:
    """How pictures are prepared, decided by labelled ones, and how the boxes are read, if it may be a detector."""
    if guesses.picture is None or guesses.state:
        return None
    if known.user is not None and known.user.targets == CLASSES:
        return scale(found, asked, guesses, known)
    if known.user is None or known.user.targets != BOXES:
        size = [side or other for side, other in zip(picture_sides(guesses.picture), known.sides or (0, 0), strict=True)]
        return detectors_choice.guess(tried, size)
    return decide(found, asked, guesses, known)


def scale(found: Inspection, asked: Asked, guesses: Guesses, known: Known) -> Choice | None:
    """The usual values of pixels with which most labelled pictures are classified correctly, where the file does not tell them."""
    sections = assemble(found, asked, guesses, known)
    _, settings = trial_run.read_items(sections["data"].values, asked.conf, 0)
    known_scaling = find_scaling(guesses.fed[0].port)[1] != GUESSED
    if known_scaling or settings.targets != CLASSES or not isinstance(settings, image_folder.Settings):
        return None
    items = picture_settings.read_spread(settings)
    names, numbers = settings.index_classes({str(item.label) for item in items} | set(known.user.labels if known.user else ()))
    ways = picture_settings.list_scalings(settings.spec)
    feeds = [detectors_choice.prepare(items, way.spec) for way in ways]
    runs = trial_run.run(asked.importer.__name__, asked.path, sections["model"].values, feeds, names)
    if any(each.error is not None for each in runs):
        return None
    return picture_settings.decide_scaling(np.array([numbers[str(item.label)] for item in items]), len(names), ways, runs)


def decide(found: Inspection, asked: Asked, guesses: Guesses, known: Known) -> Choice | None:
    data, axes = suggest_data(guesses, known)
    model = suggest_model(found, guesses, settings_of(asked.importer), axes)
    items, settings = trial_run.read_items(data.values, asked.conf, detectors_choice.PICTURES)
    scaled = bool(guesses.fed[0].port.mean or guesses.fed[0].port.quantization)
    ways = detectors_choice.list_ways(settings.spec, scaled)
    feeds = [detectors_choice.prepare(items, way.spec) for way in ways]
    runs = trial_run.run(asked.importer.__name__, asked.path, model.values, feeds)
    return detectors_choice.decide(items, ways, runs) if all(each.error is None for each in runs) else None
