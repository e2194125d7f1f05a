"""The points of a sweep: overrides from the command line, each point composed to a full configuration before anything runs.

The overrides are Hydra's. params.yaml is changed by DVC's own function, so that a point is what `dvc exp run -S` makes of it.
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

GROUPS = ("search",)  # of conf/sweep: how to sweep; not a key of params.yaml
Overrides = tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One set of choices. params: the text of its params.yaml. choices: the same, parsed. config: composed and checked."""

    overrides: Overrides
    params: str
    choices: Mapping[str, Any]
    config: Config

    @property
    def settings(self) -> dict[str, str]:
        return settings_by_key(self.overrides)


def grid_points(arguments: Sequence[str]) -> list[Overrides]:
    """All combinations of the swept values, as Hydra's basic sweeper makes them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return list(dict.fromkeys(tuple(point) for point in BasicSweeper.split_arguments(parse_overrides(arguments), None)[0]))


def representative_points(arguments: Sequence[str]) -> list[Overrides]:
    """Points to check before a search, whose points are not known yet: the first value of every key, then each other value once."""
    values = {override.get_key_element(): values_to_check(override) for override in parse_overrides(arguments)}
    first = {key: choices[0] for key, choices in values.items()}
    others = [{**first, key: value} for key, choices in values.items() for value in choices[1:]]
    return [tuple(f"{key}={value}" for key, value in point.items()) for point in (first, *others)]


def parse_overrides(arguments: Sequence[str]) -> list[Any]:
    """Parse with Hydra's grammar. Raises ConfigError for a range that is empty."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(drop_group_overrides(arguments))
    for override in overrides:
        if override.is_range_sweep() and not range_has_values(override.value()):
            raise ConfigError(
                f"{override.input_line}: no value lies in it; range(START,STOP,STEP) goes from START up to, but not including, STOP"
            )
    return overrides


def range_has_values(sweep: Any) -> bool:
    """Whether Hydra's range(start, stop, step) is not empty."""
    return bool(sweep.step != 0 and (sweep.stop - sweep.start) * sweep.step > 0)


def values_to_check(override: Any) -> list[str]:
    """All values of a choice, both ends of a range or an interval, or the one value."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    value = override.value()
    if override.is_interval_sweep():
        return [str(value.start), str(value.end)]
    every = list(override.sweep_string_iterator())
    return [every[0], every[-1]] if override.is_range_sweep() and len(every) > 1 else every


def drop_group_overrides(arguments: Iterable[str]) -> list[str]:
    """The arguments without those that select from a group of conf/sweep."""
    return [argument for argument in arguments if argument.lstrip("+").partition("=")[0] not in GROUPS]


def compose_all(params: str, every: Sequence[Overrides], options: Options) -> list[Point]:
    """Compose every point. Raises one ConfigError for all points that are wrong. params: the text of params.yaml."""
    made: list[Point] = []
    wrong: list[str] = []
    for overrides in every:
        try:
            made.append(compose_point(params, overrides, options))
        except ConfigError as error:
            wrong.append(f"{' '.join(overrides)}: {error}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ConfigError(f"{len(wrong)} of {len(every)} points have wrong settings, so nothing was run: {wrong[0]}{more}")
    return made


def compose_point(params: str, overrides: Overrides, options: Options) -> Point:
    """Apply the overrides to `params`, the text of params.yaml, and compose. Raises ConfigError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(params, encoding="utf-8")
        override_params(path, overrides)
        choices = read_choices(path)
        return Point(overrides, path.read_text(encoding="utf-8"), choices, compose_choices(choices, options))


def override_params(params: Path, overrides: Overrides) -> None:
    """Edit the file `params` as `dvc exp run -S` does. Raises ConfigError."""
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.hydra import apply_overrides
    from omegaconf.errors import OmegaConfBaseException

    try:
        apply_overrides(params, list(overrides))
    except (InvalidArgumentError, OmegaConfBaseException) as error:
        raise ConfigError(f"params.yaml: {' '.join(str(error.__cause__ or error).split())}") from None


def settings_by_key(overrides: Iterable[str]) -> dict[str, str]:
    """{"variants.onnx-int8-static.per_channel": "true"}: keys without a leading + or ~, values as given."""
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+~"): value for key, _, value in pairs}


def point_name(point: Point, code_key: str, inputs: Mapping[str, str]) -> str:
    """sweep-<10 hex digits>: equal choices, code and input fingerprint give the same name in every sweep, wherever its runs are kept."""
    choices = {key: value for key, value in point.choices.items() if key != "tracking_uri"}
    content = json.dumps([choices, code_key, inputs], sort_keys=True)
    return f"sweep-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def swept_keys(every: Sequence[Overrides]) -> list[str]:
    """The keys whose values differ from point to point, in the order of the command line."""
    given = [settings_by_key(overrides) for overrides in every]
    keys = dict.fromkeys(key for point in given for key in point)
    return [key for key in keys if len({point.get(key) for point in given}) > 1]


def judged_variants(keys: Iterable[str], overrides: Overrides, config: Config) -> list[str]:
    """The variants that a point is about: those that a swept key names, or all where a swept key concerns all."""
    named: list[str] = []
    for key in keys:
        head, _, rest = key.partition(".")
        if head != "variants":
            return list(config.variants)
        value = settings_by_key(overrides).get(key, "")
        named += [v for v in config.variants if rest == v or rest.startswith(f"{v}.") or (not rest and f"{v}:" in value)]
    return list(dict.fromkeys(named)) or list(config.variants)


def reference_digest(config: Config) -> str:
    """A digest of all that the reference's figures depend on. Ratios to different references cannot be compared."""
    plain = to_plain(config)
    reference = plain["variants"][config.reference]
    content = [plain[name] for name in ("seed", "data", "task", "model", "train", "device")]
    content += [config.reference, reference, plain["formats"][reference["format"]], config.bench.scope]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
