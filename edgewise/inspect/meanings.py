"""What the inputs and outputs of a file probably are, told by their names, types and shapes. All of it is a guess, and shown as one.

An input is an image, ids, a mask, audio, features, state or a constant; an output holds scores (logits or probabilities), a map, an
embedding, values or state. Sample axes are guessed too: the first one, unless another axis alone has length one or is open.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.data.encoders import NEAREST
from edgewise.sources import heads, state_pairs
from edgewise.sources.inspection import CHANNELS, CONTAINERS, Inspection, Port

IMAGE, IDS, MASK, AUDIO, FEATURES = "image", "ids", "mask", "audio", "features"
STATE, CONSTANT = "state", "constant"
SCORES, MAP, EMBEDDING, VALUES = "scores", "map", "embedding", "values"

HELD = re.compile(
    r"(^|[_.:/])([hc](_?(x|n|t|in|0|prev))?|states?|hidden|cell|caches?|past|mem|memory|carry|context)([_.:/\d]|in|prev|$)", re.I
)
RATE = re.compile(r"^(sr|fs|(sample|sampling)_?rate)$", re.I)
TRAINING = re.compile(r"(^|_)(is_)?training$|^train(_mode)?$", re.I)
PICTURE_SIZE = re.compile(r"(im|img|image|orig|target|input)_?(target_)?(size|shape)s?$", re.I)
PICTURE_SCALE = re.compile(r"scale_?factor$", re.I)
SOUND = re.compile(r"audio|wav|speech|pcm|sound|signal|samples$", re.I)
MASKS = re.compile(r"mask", re.I)
TYPES = re.compile(r"(token_)?type|segment", re.I)
VECTOR = re.compile(r"embed|feature|descriptor", re.I)
ROLES = {"predictions": "boxes with their scores", "heatmap": "map of centers", "sizes": "map of sizes", "offsets": "map of offsets"}
RATE_GUESS_HZ = 16_000
LEAST_SIDE = 8  # of a picture, in pixels
AUDIO_LENGTH = 400  # numbers from which on a vector with a name like that of a signal is one


@dataclass(frozen=True)
class Guess:
    """One port. sample_axis: None where it has none. state: of an input, the output that feeds it. value: of a constant; None if only the
    user knows it. layout: of an image, NCHW or NHWC, without N where it has no sample axis."""

    port: Port
    meaning: str
    sample_axis: int | None = 0
    state: str | None = None
    value: Any = None
    layout: str | None = None

    @property
    def fed(self) -> bool:
        """Whether the data feeds it."""
        return self.meaning not in (STATE, CONSTANT)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Of one sample (of one step of it, with state); None where open."""
        return tuple(size for place, size in enumerate(self.port.shape) if place != self.sample_axis)

    @property
    def dtype(self) -> str:
        """That of the data which feeds it: real values where the file quantizes, 32 bits where it computes with other floats."""
        real = self.port.quantization or self.port.dtype.startswith(("float", "double", "bfloat"))
        return "float32" if real else NEAREST.get(self.port.dtype, self.port.dtype)

    @property
    def words(self) -> str:
        """As the user reads it."""
        if self.meaning == STATE and self.state:
            return f"state, next from {self.state}"
        if self.meaning == CONSTANT:
            return f"constant, {self.value}" if self.value is not None else "constant, only you know its value"
        where = "" if self.sample_axis == 0 or not self.port.shape else ", one sample without an axis for it"
        where = f", samples on axis {self.sample_axis}" if self.sample_axis else where
        return f"{self.meaning}{f' {self.layout}' if self.layout else ''}{where}"


@dataclass(frozen=True)
class Guesses:
    """All ports of a file, in its order."""

    inputs: tuple[Guess, ...]
    outputs: tuple[Guess, ...]

    @property
    def fed(self) -> tuple[Guess, ...]:
        return tuple(guess for guess in self.inputs if guess.fed)

    @property
    def answered(self) -> tuple[Guess, ...]:
        """The outputs that do not feed state; where all of them do, they are the answers too."""
        return tuple(guess for guess in self.outputs if guess.meaning != STATE) or self.outputs

    @property
    def state(self) -> dict[str, str]:
        return {guess.port.name: guess.state for guess in self.inputs if guess.state is not None}

    @property
    def constants(self) -> dict[str, Any]:
        return {guess.port.name: guess.value for guess in self.inputs if guess.meaning == CONSTANT}

    @property
    def picture(self) -> Guess | None:
        """The image that the model takes, if it takes nothing else."""
        return self.fed[0] if len(self.fed) == 1 and self.fed[0].meaning == IMAGE else None


def guess_ports(found: Inspection) -> Guesses:
    state = guess_state(found)
    inputs = [guess_input(port, state, found.inputs) for port in found.inputs]
    image = next((guess for guess in inputs if guess.meaning == IMAGE), None)
    inputs = [guess if guess.fed or len(guess.port.shape) < 2 else replace(guess, **told_by_picture(guess, image)) for guess in inputs]
    if not any(guess.fed for guess in inputs):
        inputs = [guess if guess.meaning == STATE else Guess(guess.port, FEATURES, guess_sample_axis(guess.port)) for guess in inputs]
    inputs = align_counts(inputs)
    carried = set(state.values())
    outputs = [guess_output(port, carried) for port in found.outputs]
    roles = find_roles([guess.port for guess in outputs if guess.meaning != STATE], image) if image and len(inputs) == 1 else {}
    named = [replace(guess, meaning=roles.get(guess.port.name, guess.meaning)) for guess in outputs]
    return Guesses(tuple(inputs), tuple(named))


def align_counts(inputs: Sequence[Guess]) -> list[Guess]:
    """The inputs; one whose first size is the fixed number of samples that another input takes counts samples there, too."""
    counts = {guess.port.shape[0] for guess in inputs if guess.fed and guess.sample_axis == 0 and guess.port.shape} - {None, 1}
    return [
        replace(guess, sample_axis=0)
        if guess.fed
        and guess.meaning != IMAGE
        and guess.sample_axis is None
        and len(guess.port.shape) > 1
        and guess.port.shape[0] in counts
        else guess
        for guess in inputs
    ]


def find_roles(outputs: Sequence[Port], image: Guess) -> dict[str, str]:
    """{output: meaning} where the shapes of all outputs look like those of a detector."""
    sides, shapes = picture_sides(image), {port.name: port.shape for port in outputs if is_tensor(port)}
    candidates = heads.recognize(shapes, [int(side) for side in sides if side]) if None not in sides else []
    return {name: ROLES.get(role, role) for role, name in candidates[0].spec["outputs"].items()} if candidates else {}


def guess_state(found: Inspection) -> dict[str, str]:
    """Inputs that carry state, with the outputs that feed them. At least one input is left for the data."""
    inputs, outputs = ([artifact.Port(p.name, p.shape, p.dtype) for p in side if is_tensor(p)] for side in (found.inputs, found.outputs))
    pairs = state_pairs.suggest_state(inputs, outputs)
    pairs |= pair_in_order([port for port in inputs if port.name not in pairs], outputs, {*pairs.values()})
    pairs |= pair_layers([port for port in inputs if port.name not in pairs], outputs, {*pairs.values()})
    for port in inputs:
        same = [out.name for out in outputs if state_pairs.fits_state(port, out) and out.name not in pairs.values()]
        counted = [name for name in same if state_pairs.is_related(port.name, name)]
        if port.name not in pairs and counted and pairs and all(size == 1 for size in port.shape):  # a step that is counted
            pairs[port.name] = counted[0]
    pictures = {port.name for port in found.inputs if guess_image(port)}
    named = {name: out for name, out in pairs.items() if HELD.search(name)}
    pairs = {name: out for name, out in pairs.items() if name in named or name not in pictures}
    others = [port for port in found.inputs if port.name not in pairs and not is_single(port)]
    answers = {port.name for port in found.outputs} - {*pairs.values()}
    if others and answers:
        return pairs
    return named if others or len(named) < len(pairs) else {}


def pair_in_order(inputs: Sequence[artifact.Port], outputs: Sequence[artifact.Port], taken: Set[str]) -> dict[str, str]:
    """Inputs that are named like state, with the outputs of their shape, where there are as many of one as of the other."""
    held = [port for port in inputs if is_long(port.shape) and HELD.search(port.name)]
    found = {}
    for port in held:
        peers = [other.name for other in held if (other.shape, other.dtype) == (port.shape, port.dtype)]
        same = [out.name for out in outputs if out.name not in taken and state_pairs.fits_state(port, out)]
        if len(same) == len(peers):
            found[port.name] = same[peers.index(port.name)]
    return found


def pair_layers(inputs: Sequence[artifact.Port], outputs: Sequence[artifact.Port], taken: Set[str]) -> dict[str, str]:
    """Inputs [layers, batch, hidden], as recurrent layers carry them, with the one output of this shape, whatever they are named."""
    held = [port for port in inputs if len(port.shape) == 3 and port.shape[1] in (None, 1) and port.shape[0] and port.shape[2]]
    found = {}
    for port in held:
        fitting = [out.name for out in outputs if out.name not in taken and out.shape and state_pairs.fits_state(port, out)]
        if len(fitting) == 1 and sum(other.shape == port.shape for other in inputs) == 1:
            found[port.name] = fitting[0]
    return found


def is_long(shape: Sequence[int | None]) -> bool:
    """Whether it may be that of a state: several axes, or one of a fixed length above one."""
    return len(shape) > 1 or any(size is not None and size > 1 for size in shape)


def is_tensor(port: Port) -> bool:
    return port.dtype not in CONTAINERS and port.known_rank


def is_single(port: Port) -> bool:
    """Whether it holds one number that does not count samples."""
    return is_tensor(port) and all(size == 1 for size in port.shape) and len(port.shape) < 2


def guess_input(port: Port, state: Mapping[str, str], inputs: Sequence[Port]) -> Guess:
    if port.name in state:
        return Guess(port, STATE, state=state[port.name])
    if len(inputs) > 1 and is_single(port):
        return Guess(port, CONSTANT, None, value=guess_value(port))
    if len(inputs) > 1 and len(port.shape) == 2 and (PICTURE_SIZE.search(port.name) or PICTURE_SCALE.search(port.name)):
        return Guess(port, CONSTANT, None)
    image = guess_image(port)
    if image:
        return image
    axis = guess_sample_axis(port)
    if port.dtype == "bool" or (MASKS.search(port.name) and len(port.shape) <= 2):
        return Guess(port, MASK, axis)
    if port.dtype in ("int32", "int64") and len(port.shape) <= 2 and not port.quantization:
        return Guess(port, IDS, axis)
    rated = any(RATE.search(other.name) for other in inputs)
    return Guess(port, AUDIO if rated or is_signal(port, axis) else FEATURES, axis)


def is_signal(port: Port, axis: int | None) -> bool:
    """Whether one sample is a vector, long enough for a piece of sound, and named like one."""
    sizes = [size for place, size in enumerate(port.shape) if place != axis and size != 1]
    return len(sizes) == 1 and (sizes[0] is None or sizes[0] >= AUDIO_LENGTH) and bool(SOUND.search(port.name))


def guess_value(port: Port) -> Any:
    """Of a constant; None if only the user knows it."""
    if RATE.search(port.name) and port.dtype.startswith(("int", "uint")):
        return RATE_GUESS_HZ
    return False if TRAINING.search(port.name) else None


def told_by_picture(guess: Guess, image: Guess | None) -> dict[str, Any]:
    """The value of a constant that detectors take beside a picture: its height and width, or how much it was scaled."""
    if guess.meaning != CONSTANT:
        return {}
    count = guess.port.shape[1] or 2
    if PICTURE_SCALE.search(guess.port.name):
        return {"value": [[1.0] * count]}
    sides = picture_sides(image) if image else [None]
    return {"value": [sides] if count == len(sides) and None not in sides else None}


def picture_sides(image: Guess) -> list[int | None]:
    """Height and width."""
    return list(image.sizes[1:] if image.layout in ("NCHW", "CHW") else image.sizes[:2])


def guess_image(port: Port) -> Guess | None:
    """Four axes with channels, or three that begin or end with them; values of one byte, or floats."""
    if not (port.dtype.startswith("float") or port.dtype in ("uint8", "int8")) or len(port.shape) not in (3, 4):
        return None
    whole = len(port.shape) == 4
    sizes = port.shape[1:] if whole else port.shape
    layout = find_layout(sizes)
    if layout is None or (not whole and None in sizes):
        return None
    return Guess(port, IMAGE, 0 if whole else None, layout=f"N{layout}" if whole else layout)


def find_layout(sizes: Sequence[int | None]) -> str | None:
    """CHW or HWC; None where neither the first nor the last size can be channels."""
    for layout, channels, sides in (("CHW", sizes[0], sizes[1:]), ("HWC", sizes[2], sizes[:2])):
        if channels in CHANNELS and all(side is None or side >= LEAST_SIDE for side in sides):
            return layout
    return None


def guess_sample_axis(port: Port) -> int | None:
    """The axis that the file calls the batch; else the first if it is open or one; else the only other one that is; else none."""
    if port.batch_axis is not None:
        return port.batch_axis
    if not port.shape or port.shape[0] in (None, 1):
        return 0 if port.shape else None
    free = [place for place, size in enumerate(port.shape) if size in (None, 1)]
    return free[0] if len(free) == 1 and len(port.shape) > 2 else None


def guess_output(port: Port, carried: set[str]) -> Guess:
    if port.name in carried:
        return Guess(port, STATE)
    sides = len(port.shape)
    if sides == 4 and find_layout(port.shape[1:]) or sides == 4 and min(size or LEAST_SIDE for size in port.shape[2:]) >= LEAST_SIDE:
        return Guess(port, MAP)
    if VECTOR.search(port.name) and sides > 1:
        return Guess(port, EMBEDDING)
    if sides == 2 and (port.shape[1] or 0) > 1 and (port.dtype.startswith("float") or port.quantization):
        return Guess(port, SCORES)
    return Guess(port, VALUES, 0 if sides else None)


def name_scores(values: np.ndarray) -> str:
    """What an output [n, k] holds, by its values: probabilities add up to one, embeddings have the length one."""
    given = np.asarray(values, np.float64)
    if given.min() >= 0 and np.allclose(given.sum(axis=1), 1, atol=0.02):
        return "probabilities"
    if np.allclose(np.linalg.norm(given, axis=1), 1, atol=1e-3):
        return EMBEDDING
    return "probabilities, each from 0 to 1" if given.min() >= 0 and given.max() <= 1 else "logits"
