"""Sections of params.yaml with which an inspected file runs: its data, its task, the model itself, its usual variants."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewise.agent.ragged import AS_IS
from edgewise.artifacts.targets import BOXES, CLASSES, MASKS, MULTI_LABEL, NONE, VALUES
from edgewise.config.settings import nearest
from edgewise.data import common
from edgewise.errors import ConfigError, DataError, MissingExtra
from edgewise.inspect.detectors_choice import Choice
from edgewise.inspect.meanings import AUDIO, IDS, IMAGE, MASK, RATE, TYPES, Guess, Guesses, picture_sides
from edgewise.inspect.params_text import Section
from edgewise.inspect.picture_settings import describe_pictures, limits_of, real_limits
from edgewise.inspect.user_data import UserData, fit_arrays
from edgewise.plugins import IGNORED
from edgewise.sources.inspection import Inspection
from edgewise.sources.oracle import is_number

USUAL = ("fp32", "fp16", "int8-dynamic", "int8-static")
FLOAT = ("fp32", "fp16")
METHOD, MEAN = "calibration.method", "mean"
SHARES = {"validation": 0.1, "calibration": 0.2, "test": 0.7}  # nothing is trained
PLACED_SHARES = {"validation": 0.2, "calibration": 0.4, "test": 0.4}  # boxes and masks mostly have a test split of their own
OF_PLACED = "with a val or test split these divide train alone, and test has no effect"
# what the file leaves open: numbers of a piece of sound with state, without it (a second), tokens or features; steps of a sequence
PIECE, LONG_PIECE, LENGTH, STEPS = 512, 16_000, 64, 16
USUAL_SAMPLES, LEAST_SAMPLES = 64, 16  # random ones, as conf/data/random.yaml has them, and of a model that takes much
MOST_NUMBERS = 30_000_000  # of all random samples together
BACKGROUND = 1001  # outputs of a model for ImageNet's 1000 classes and a background
SAFE, LONGEST_NAME = re.compile(r"[^\w:./-]"), 64
DETECTION = "detection"  # the task
TASKS = {CLASSES: "classification", MULTI_LABEL: "multi_label", VALUES: "regression"}
GUESS, MISSING = "a guess", "VALUE"
Shapes = Mapping[str, tuple[int | None, ...]]


@dataclass(frozen=True)
class Formats:
    """possible: {format: {"sources": ..., "schemes": ..., "methods": {scheme: values of calibration.method}}} of all.
    missing: {format: extra that installs it}, of those that are not installed here. rare: formats that the extra `all` leaves out, which
    are named to nobody who has not installed them."""

    possible: Mapping[str, Mapping[str, Any]]
    missing: Mapping[str, str] = field(default_factory=dict)
    rare: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Known:
    """What is known beside the ports.

    user: the data. sides: of pictures, in the place of open ones; length: of other open axes; most_id: the highest of random token ids.
    outputs: shapes by name, as a run gave them. choice: how pictures are prepared, and the boxes of a detector read. tokenizer: a file
    beside the model. names: of the classes, packed in the file. path: of it. open_sizes: whether a source of its kind takes pictures of
    various sizes.
    """

    user: UserData | None = None
    sides: tuple[int, int] | None = None
    length: int = LENGTH
    most_id: int = 99
    outputs: Shapes | None = None
    choice: Choice | None = None
    tokenizer: str | None = None
    names: tuple[str, ...] = ()
    path: str = ""
    open_sizes: bool = False


# The model


def suggest_model(found: Inspection, guesses: Guesses, settings: frozenset[str], axes: Mapping[str, int | None]) -> Section:
    """settings: names of those that the source has. axes: sample axes of inputs, where another than the first."""
    given: dict[str, Any] = dict(found.model or {})
    inputs: dict[str, Any] = {name: MISSING if value is None else value for name, value in guesses.constants.items()}
    inputs |= {name: {"sample_axis": axis} for name, axis in axes.items()}
    odd = [guess.port for guess in guesses.outputs if not is_number(guess.port.dtype)]
    kept = [guess.port.name for guess in guesses.outputs if odd and guess.port not in odd]
    wanted = {"inputs": inputs, "state": guesses.state, "outputs": kept, "step_ms": guess_step_ms(guesses)}
    given |= {key: value for key, value in wanted.items() if value and key in settings}
    unknown = [f"{name} ({guess_type(guesses, name)})" for name, value in guesses.constants.items() if value is None]
    guessed = [name for name, value in guesses.constants.items() if value is not None]
    words = [f"VALUE must be given: {', '.join(unknown)}"] if unknown else []
    words += [f"{', '.join(guessed)}: {GUESS}"] if guessed else []
    remarks = {"inputs": "; ".join(words), "state": GUESS, "step_ms": f"{GUESS}: time that one step covers, for the real-time factor"}
    remarks["outputs"] = f"without {', '.join(f'{port.name} ({port.dtype})' for port in odd)}, which is no array of numbers"
    return Section(given, {key: remark for key, remark in remarks.items() if remark and key in given})


def guess_type(guesses: Guesses, name: str) -> str:
    return next(guess.port.dtype for guess in guesses.inputs if guess.port.name == name)


def guess_step_ms(guesses: Guesses) -> float | None:
    """Of a piece of sound, by its sampling rate."""
    rate = next((value for name, value in guesses.constants.items() if RATE.search(name)), None)
    sound = next((guess for guess in guesses.fed if guess.meaning == AUDIO), None)
    return 1000 * fill_sizes(sound, guesses, Known())[-1] / rate if rate and sound and guesses.state else None


def find_axes(guesses: Guesses) -> dict[str, int | None]:
    """Of the inputs that the data feeds, where it is not what the pipeline takes for granted."""
    return {guess.port.name: guess.sample_axis for guess in guesses.fed if guess.sample_axis}


# The data


def suggest_data(guesses: Guesses, known: Known) -> tuple[Section, dict[str, int | None]]:
    """The section, and the sample axes of inputs where another than the first."""
    user = known.user
    if user is None:
        return suggest_random(guesses, known), find_axes(guesses)
    if user.pictures:
        return suggest_pictures(guesses, known, user), find_axes(guesses)
    if not user.arrays:
        return suggest_text(guesses, known, user), {}
    fitted = fit_arrays(guesses, user.arrays)
    return Section({"name": user.name, **user.settings, **fitted.settings, "splits": SHARES}, user.remarks, fitted.remarks), {**fitted.axes}


def suggest_pictures(guesses: Guesses, known: Known, user: UserData) -> Section:
    """DataError where the model takes something else."""
    image = guesses.picture
    if image is None:
        taken = ", ".join(f"{guess.port.name} ({guess.words})" for guess in guesses.fed)
        raise DataError(
            f"--data: {user.settings['path']} holds pictures, the model takes {taken}; give an .npz file with one array for each input"
        )
    settings, remarks = describe_pictures(image, known.sides)
    if known.open_sizes and picture_sides(image) == [None, None]:
        remarks |= {"image_size": f"{remarks['image_size']}; with resize: {AS_IS} and task none pictures keep their own sizes"}
    chosen = known.choice.data if known.choice else {}
    if known.choice and chosen:
        settings |= chosen
        remarks = {key: remark for key, remark in remarks.items() if key not in chosen} | {
            next(iter(chosen)): known.choice.of_data or known.choice.words
        }
    placed = user.targets in (BOXES, MASKS)
    values = {"name": user.name, **user.settings, **settings, "splits": PLACED_SHARES if placed else SHARES}
    remarks |= {"splits": OF_PLACED} if placed else {}
    order = {"channel_order": "or bgr, as OpenCV reads them"} if settings["channels"] == 3 and not chosen else {}
    return Section(values | ({"channel_order": "rgb"} if order else {}), {**remarks, **order, **user.remarks})


def suggest_text(guesses: Guesses, known: Known, user: UserData) -> Section:
    ids = next((guess for guess in guesses.fed if guess.meaning == IDS), None)
    if ids is None:
        taken = ", ".join(f"{guess.port.name} ({guess.words})" for guess in guesses.fed)
        raise DataError(
            f"--data: {user.settings['path']} holds sentences, the model takes {taken}; give an .npz file with one array for each"
        )
    values = {
        "name": user.name,
        **user.settings,
        "length": fill_sizes(ids, guesses, known)[-1],
        "tokenizer": known.tokenizer,
        "splits": SHARES,
    }
    needed = "must be the model's own tokenizer.json or vocab.txt; null trains another, with which its answers mean nothing"
    remarks = {"tokenizer": needed} if known.tokenizer is None else {"tokenizer": f"{GUESS}: it lies beside the model"}
    return Section(values, {**remarks, **user.remarks})


def suggest_random(guesses: Guesses, known: Known) -> Section:
    names = name_arrays([guess.port.name for guess in guesses.fed])
    inputs = {name: describe_random(guess, guesses, known) for name, guess in zip(names, guesses.fed, strict=True)}
    head = ["random inputs, for a first look at speed and size only; quality needs data:"]
    tail: list[str] = []
    if guesses.picture:
        settings, remarks = describe_pictures(guesses.picture, known.sides)
        tail = [f"{known.path} --data FOLDER_OF_PICTURES fills this in:", "name: image_folder", "path: FOLDER_OF_PICTURES"]
        tail[0] = f"edgewise inspect {tail[0]}"
        tail += [f"{key}: {str(value).lower()}{f' # {remarks[key]}' if key in remarks else ''}" for key, value in settings.items()]
        head[0] = head[0].removesuffix(":") + ", see below"
    else:
        kind = "SENTENCES.tsv" if any(guess.meaning == IDS for guess in guesses.fed) else "ARRAYS.npz, with one array for each input"
        head[0] += f" edgewise inspect {known.path} --data {kind}"
    numbers = sum(math.prod(each["shape"]) for each in inputs.values())
    few = {"samples": max(LEAST_SAMPLES, MOST_NUMBERS // numbers)} if numbers * USUAL_SAMPLES > MOST_NUMBERS else {}
    return Section({"name": "random", "inputs": inputs, **few}, {}, head, tail)


def name_arrays(ports: Sequence[str]) -> list[str]:
    """A name for the array of each of these inputs: the input's own as far as it can be that of a file (see encoders.check_name)."""
    names: list[str] = []
    for port in ports:
        parts = (part.lstrip(".") for part in SAFE.sub("_", port).split("/"))
        name = "/".join(part for part in parts if part)[:LONGEST_NAME].rstrip("/") or "input"
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def describe_random(guess: Guess, guesses: Guesses, known: Known) -> dict[str, Any]:
    """An entry of data.inputs."""
    sizes = list(fill_sizes(guess, guesses, known))
    return {
        "shape": [STEPS, *sizes] if guesses.state else sizes,
        "dtype": guess.dtype,
        "range": guess_limits(guess, guesses, known),
    }


def fill_sizes(guess: Guess, guesses: Guesses, known: Known) -> tuple[int, ...]:
    """The sizes of one sample, with usual ones where the file leaves them open."""
    if guess.meaning == IMAGE:
        settings, _ = describe_pictures(guess, known.sides)
        size = settings["image_size"]
        height, width = size if isinstance(size, list) else (size, size)
        return (height, width, settings["channels"]) if settings["channels_last"] else (settings["channels"], height, width)
    usual = (PIECE if guesses.state else LONG_PIECE) if guess.meaning == AUDIO else known.length
    return tuple(usual if size is None else size for size in guess.sizes)


def guess_limits(guess: Guess, guesses: Guesses, known: Known) -> list[float]:
    """Smallest and largest value, such that any model takes them."""
    if guess.meaning == IMAGE:
        return limits_of(describe_pictures(guess, known.sides)[0])
    if guess.port.quantization:
        return [float(f"{limit:.4g}") for limit in real_limits(guess.port)]
    if guess.meaning == MASK and len(guesses.fed) > 1:  # nothing is hidden
        return [1, 1]
    if guess.meaning == IDS:
        return [0, 0] if TYPES.search(guess.port.name) else [0, known.most_id]
    return [0, 1] if guess.meaning == MASK or guess.dtype == "bool" or guess.dtype.startswith("uint") else [-1, 1]


# The task


def suggest_task(guesses: Guesses, known: Known) -> tuple[Section, dict[str, Any]]:
    """The section, and settings of the data that go with it."""
    user, shapes = known.user, known.outputs or {guess.port.name: guess.port.shape for guess in guesses.answered}
    tail = list(known.choice.hints) if known.choice else []
    if known.choice and known.choice.decoding and known.choice.sure:
        return Section({"name": DETECTION, "decoding": dict(known.choice.decoding)}, {"decoding": known.choice.words}), {}
    if user is None or user.targets == NONE:
        return Section({"name": "none"}, head=["outputs are compared with the reference's; no labels are needed"], tail=tail), {}
    if user.targets == MASKS and fits_masks(shapes, len(user.labels)):
        return Section({"name": "segmentation"}), {}
    if user.targets == MASKS and fits_masks(shapes, len(user.labels) - 1):
        last = f"{GUESS}: the model has one class fewer than the masks, so the last is 'not labelled'"
        return Section({"name": "segmentation"}, head=[f"data.ignore: {last}"]), {"ignore": [IGNORED, len(user.labels) - 1]}
    if user.targets in TASKS and has_vector(shapes, len(user.labels)):
        return Section({"name": TASKS[user.targets]}), {}
    if user.targets == CLASSES and (named := use_names(shapes, known, user)):
        return Section({"name": TASKS[CLASSES]}), named
    return Section({"name": "none"}, head=explain_none(shapes, user), tail=tail), {"targets": NONE}


def use_names(shapes: Shapes, known: Known, user: UserData) -> dict[str, Any]:
    """Settings by which the names in the file tell which output each label is; {} where they do not."""
    offset = next((count for count in (0, 1) if known.names and has_vector(shapes, len(known.names) + count)), None)
    if offset is None:
        return {}
    try:
        common.find_classes(user.labels, known.names)
    except DataError:
        return {}
    return {"label_names": known.path, **({"label_offset": offset} if offset else {})}


def has_vector(shapes: Shapes, count: int) -> bool:
    """Whether an output has one value for each label."""
    return any(len(shape) == 2 and shape[1] == count for shape in shapes.values())


def fits_masks(shapes: Shapes, classes: int) -> bool:
    """Whether exactly one output is a map with a channel for each class, or of one channel for two classes."""
    wanted = {classes, 1} if classes == 2 else {classes}
    return sum(len(shape) == 4 and bool(wanted & {shape[1], shape[3]}) for shape in shapes.values()) == 1


def explain_none(shapes: Shapes, user: UserData) -> list[str]:
    """Why the labels are not used, and what would help."""
    given = ", ".join(f"{name} [{', '.join('any' if size is None else str(size) for size in shape)}]" for name, shape in shapes.items())
    lines = [f"the labels are not read (data.targets): the model gives {given}, the data has {user.words}"]
    vectors = [shape[1] for shape in shapes.values() if len(shape) == 2 and (shape[1] or 0) > 1]
    if user.targets == CLASSES and vectors:
        lines.append(f"to score it: data.label_names=FILE with {vectors[0]} names in the model's order, task.name=classification")
        if vectors[0] == BACKGROUND:
            lines.append("1001 are often the 1000 classes of ImageNet behind a background (a guess): then also data.label_offset=1")
    return lines


# The variants


def suggest_variants(found: Inspection, source: str, formats: Formats, schemes: Sequence[str]) -> Section:
    """Variants of formats that read the file directly or through one other format, and are installed. A quantized file stays in its own.

    ConfigError if none of the schemes is possible, MissingExtra if no format that reads the file and has one of them is installed.
    """
    every = formats.possible
    direct = {name for name, form in every.items() if source in form["sources"]} if found.schemes is None else {source}
    between = {name for name, form in every.items() if form["sources"][0] in direct} if found.schemes is None else set()
    wanted = schemes if found.schemes is None else found.schemes
    # the file's own format comes first: its first variant is the reference
    ordered = [name for name in sorted(every, key=lambda name: name != source) if name in direct | between]
    made = {
        f"{name}-{scheme}": {"format": name, "scheme": scheme}
        for name in ordered
        for scheme in every[name]["schemes"]
        if scheme in wanted and name not in formats.missing
    }
    absent = [name for name in ordered if name in formats.missing and not {*every[name]["schemes"]}.isdisjoint(wanted)]
    if not made and absent:
        raise MissingExtra(absent[0], formats.missing[absent[0]])
    if not made and found.schemes is not None and not any({*found.schemes} & {*form["schemes"]} for form in every.values()):
        raise ConfigError(
            f"{found.kind}: it is quantized in a way that is none of the schemes here and cannot be measured as it is; quantized again it"
            " would lose more: bring the float model that it was made of"
        )
    if not made:
        raise ConfigError(f"--schemes: none of {', '.join(schemes)} can be made from this file; {nearest('', found.schemes or USUAL)}")
    tail = [f"{name} is not installed here: pip install 'edgewise[{formats.missing[name]}]'" for name in absent if name not in formats.rare]
    if found.schemes is None and not any(entry["scheme"] in FLOAT for entry in made.values()):
        first = next(iter(made.values()))["format"]
        made = {f"{first}-fp32": {"format": first, "scheme": "fp32"}, **made}
        tail.append(f"{first}-fp32 is there as the reference: losses are judged against a float variant")
    return Section(made, tail=tail)


def suit_detectors(variants: Section, formats: Formats) -> Section:
    """The variants with `calibration.method: mean` where they have it: a detector's rare peaks make the steps of minmax too coarse."""
    methods = {name: formats.possible[v["format"]].get("methods", {}).get(v["scheme"], ()) for name, v in variants.values.items()}
    suited = {name: {**v, "calibration": {"method": MEAN}} if MEAN in methods[name] else v for name, v in variants.values.items()}
    why = [f"calibration.method: {MEAN}, since this is a detector: minmax makes the steps too coarse for its boxes and scores"]
    return dataclasses.replace(variants, values=suited, tail=(*variants.tail, *(why if suited != variants.values else ())))
