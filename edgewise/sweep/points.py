"""From the command line to points: each a full set of choices, checked before anything runs.

The overrides are Hydra's; params.yaml is changed by DVC's own function, so that a point is what `dvc exp run -S` makes of it.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.config.compose import Options, compose_choices, read_choices
from edgewise.config.schema import Config, to_plain
from edgewise.errors import ConfigError

GROUPS = ("search",)  # of conf/sweep: they tell how to sweep, they are no choice of params.yaml
Overrides = tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One set of choices. params: the text of its params.yaml."""

    overrides: Overrides
    params: str
    choices: Mapping[str, Any]
    config: Config

    @property
    def settings(self) -> dict[str, str]:
        return settings(self.overrides)


def settings(overrides: Iterable[str]) -> dict[str, str]:
    """{"variants.onnx-int8-static.per_channel": "true"}: the key without the signs that add or remove, and the value as given."""
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+~"): value for key, _, value in pairs}


def name(point: Point, code_key: str, world: Mapping[str, str]) -> str:
    """sweep-<10 hex>: the same choices, code and world have the same name, in whatever sweep they come up."""
    content = json.dumps([point.choices, code_key, world], sort_keys=True)
    return f"sweep-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def grid(arguments: Sequence[str]) -> list[Overrides]:
    """All combinations, as Hydra's own sweeper makes them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return list(dict.fromkeys(tuple(point) for point in BasicSweeper.split_arguments(parsed(arguments), None)[0]))


def samples_of(arguments: Sequence[str]) -> list[Overrides]:
    """For a search, whose points nobody knows beforehand: the first value of every key, then each other value once."""
    values = {override.get_key_element(): ends(override) for override in parsed(arguments)}
    first = {key: choices[0] for key, choices in values.items()}
    others = [{**first, key: value} for key, choices in values.items() for value in choices[1:]]
    return [tuple(f"{key}={value}" for key, value in point.items()) for point in (first, *others)]


def parsed(arguments: Sequence[str]) -> list[Any]:
    """Hydra's overrides. ConfigError for a range without a value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(without_groups(arguments))
    for override in overrides:
        if override.is_range_sweep() and not has_a_value(override.value()):
            raise ConfigError(f"{override.input_line}: no value lies in it; range(START,STOP,STEP) leads from START to just before STOP")
    return overrides


def has_a_value(sweep: Any) -> bool:
    """Of Hydra's range(start, stop, step)."""
    return sweep.step != 0 and (sweep.stop - sweep.start) * sweep.step > 0


def ends(override: Any) -> list[str]:
    """The values of a choice, both ends of a range or an interval, or the one value."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    value = override.value()
    if override.is_interval_sweep():
        return [str(value.start), str(value.end)]
    every = list(override.sweep_string_iterator())
    return [every[0], every[-1]] if override.is_range_sweep() and len(every) > 1 else every


def without_groups(arguments: Iterable[str]) -> list[str]:
    return [argument for argument in arguments if argument.lstrip("+").partition("=")[0] not in GROUPS]


def check_all(params: str, every: Sequence[Overrides], options: Options) -> list[Point]:
    """Every point, or one ConfigError for all that are wrong. params: the text of params.yaml."""
    made: list[Point] = []
    wrong: list[str] = []
    for overrides in every:
        try:
            made.append(point(params, overrides, options))
        except ConfigError as error:
            wrong.append(f"{' '.join(overrides)}: {error}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ConfigError(f"{len(wrong)} of {len(every)} points are wrong, so nothing was run: {wrong[0]}{more}")
    return made


def point(params: str, overrides: Overrides, options: Options) -> Point:
    """The choices of params.yaml with the overrides, composed. ConfigError names what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(params, encoding="utf-8")
        apply(path, overrides)
        choices = read_choices(path)
        return Point(overrides, path.read_text(encoding="utf-8"), choices, compose_choices(choices, options))


def apply(params: Path, overrides: Overrides) -> None:
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.hydra import apply_overrides
    from omegaconf.errors import OmegaConfBaseException

    try:
        apply_overrides(params, list(overrides))
    except (InvalidArgumentError, OmegaConfBaseException) as error:
        raise ConfigError(f"params.yaml: {' '.join(str(error.__cause__ or error).split())}") from None


def swept_keys(every: Sequence[Overrides]) -> list[str]:
    """The keys whose values differ from point to point, in the order of the command line."""
    given = [settings(overrides) for overrides in every]
    keys = dict.fromkeys(key for point in given for key in point)
    return [key for key in keys if len({point.get(key) for point in given}) > 1]


def subjects(keys: Iterable[str], overrides: Overrides, config: Config) -> list[str]:
    """The variants that a point is about: those that a swept key names; all of them where a key concerns them all."""
    named: list[str] = []
    for key in keys:
        head, _, rest = key.partition(".")
        if head != "variants":
            return list(config.variants)
        value = settings(overrides).get(key, "")
        named += [v for v in config.variants if rest == v or rest.startswith(f"{v}.") or (not rest and f"{v}:" in value)]
    return list(dict.fromkeys(named)) or list(config.variants)


def reference_key(config: Config) -> str:
    """A digest of all that the reference's own figures depend on: ratios to one reference say nothing about ratios to another."""
    plain = to_plain(config)
    reference = plain["variants"][config.reference]
    content = [plain[name] for name in ("seed", "data", "task", "model", "train", "device")]
    content += [config.reference, reference, plain["formats"][reference["format"]], config.bench.scope]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
