"""Compose the configuration: choices (params.yaml) over options (conf/), section by section, then the variants.

`compose` reads both, checks every value against the dataclasses of schema.py and the Settings of the plugins, and returns a Config.
"""

import copy
import dataclasses
import importlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import yaml

from edgewise.config.choices import (
    MARGINS,
    check_keys,
    check_name,
    check_removed,
    check_tracking_uri,
    check_values,
    find_margins,
    name_experiment,
    without_margin,
)
from edgewise.config.prune_settings import check_prune, share_prunes
from edgewise.config.schema import (
    LATENCY,
    MEMORY,
    PATH,
    Bench,
    Budget,
    Config,
    Format,
    Plugin,
    Train,
    Variant,
    part,
    to_plain,
)
from edgewise.config.settings import build, nearest
from edgewise.errors import ConfigError

PROFILE = "EDGEWISE_PROFILE"
NEW_OPTION = {"device": "; for a board of your own, copy conf/device/ssh.yaml to conf/device/{name}.yaml and set its host"}
NEEDED = {"format": ("module", "schemes"), "scheme": ("min_sqnr_db", "min_device_sqnr_db")}  # keys of options without a dataclass
HYDRA_FEATURE = re.compile(r"^\s*(-\s*)?['\"]?defaults['\"]?\s*:|@package|@_global_|\$\{", re.MULTILINE)


class Options:
    """The library of options below `conf`. `load(group, name)` composes one of them as Hydra does."""

    def __init__(self, conf: Path):
        self.conf = conf
        self.loaded: dict[tuple[str, str], dict[str, Any]] = {}
        if not conf.is_dir():
            raise ConfigError(f"{conf}/ does not exist; run the command from the top folder of the project")

    def names(self, group: str) -> list[str]:
        return sorted(path.stem for path in (self.conf / group).glob("*.yaml"))

    def load(self, group: str, name: str, where: str) -> dict[str, Any]:
        """The option as plain dicts. `where` is the key in params.yaml that named it."""
        if name not in self.names(group):
            advice = NEW_OPTION.get(group, "").format(name=name)
            raise ConfigError(f"params.yaml: {where}: {name!r}: no such file in conf/{group}/; {nearest(name, self.names(group))}{advice}")
        if (group, name) not in self.loaded:
            self.loaded[group, name] = self._compose(group, name)
        return copy.deepcopy(self.loaded[group, name])

    def _compose(self, group: str, name: str) -> dict[str, Any]:
        """By Hydra itself only where its features are used: it takes 40 ms for an option, and compose runs at each `dvc repro`."""
        plain = read_plain(self.conf / group / f"{name}.yaml")
        made = self._compose_by_hydra(group, name) if plain is None else plain
        check_option(group, made, f"conf/{group}/{name}.yaml")
        return made

    def _compose_by_hydra(self, group: str, name: str) -> dict[str, Any]:
        from hydra import compose, initialize_config_dir
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            with initialize_config_dir(str(self.conf.resolve()), version_base="1.3"):
                composed = compose(overrides=[f"+{group}@option={quoted(name)}"])
            return OmegaConf.to_container(composed, resolve=True)["option"]  # type: ignore[index,call-overload,return-value]
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"conf/{group}/{name}.yaml: {' '.join(str(error).split())}; fix the file") from None


def check_option(group: str, option: Mapping[str, Any], file: str) -> None:
    """ConfigError for a format or a scheme that lacks a key, and for a format whose module cannot be imported."""
    for key in (key for key in NEEDED.get(group, ()) if option.get(key) is None):
        raise ConfigError(f"{file}: {key}: missing; a {group} needs {', '.join(NEEDED[group])}")
    if group == "format":
        load_module(option["module"], file)


def read_plain(path: Path) -> dict[str, Any] | None:
    """The option in a file of plain keys and values. None for a file with a defaults list, a package, an interpolation or a mistake."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        if HYDRA_FEATURE.search(path.read_text(encoding="utf-8")):
            return None
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException):
        return None
    return cast(dict[str, Any], loaded) if isinstance(loaded, dict) and loaded else None


def quoted(text: str) -> str:
    """`text` as the value of a Hydra override, so that commas and brackets in it have no special meaning."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


T = TypeVar("T")


def overlay(option: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """`choice` over `option`, mapping by mapping; null in the choice keeps the option's value."""
    joined = dict(option)
    for key, value in choice.items():
        if isinstance(value, Mapping) and isinstance(joined.get(key), Mapping):
            joined[key] = overlay(joined[key], value)
        elif value is not None:
            joined[key] = {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value
    return joined


def section(cls: type[T], group: str, choice: Any, options: Options) -> T:
    """A section with a dataclass in schema.py: train, bench, budget."""
    name, given = _join(group, choice, options)
    return _build(cls, {"name": name, **without_margin(group, given)}, group, choice, f"conf/{group}/{name}.yaml")


def plugin(group: str, choice: Any, options: Options) -> Plugin:
    """A section whose option names a module: data, model, device. The module's Settings checks the rest."""
    name, given = _join(group, choice, options)
    file = f"conf/{group}/{name}.yaml"
    path = given.pop("module", None)
    module = load_module(path, file)
    settings = _build(module.Settings, without_margin(group, given), group, choice, file)
    return Plugin(name=name, module=path, settings=to_plain(settings))


def load_module(path: Any, file: str) -> ModuleType:
    if not isinstance(path, str):
        raise ConfigError(f"{file}: module: missing; it must name the Python module of this option, for example edgewise.data.digits")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{file}: module: {path!r} cannot be imported ({error}); check the spelling of the dotted path") from None


def _join(group: str, choice: Any, options: Options) -> tuple[str, dict[str, Any]]:
    if not isinstance(choice, dict) or not isinstance(choice.get("name"), str):
        raise ConfigError(
            f"params.yaml: {group}: {choice!r} must be a mapping with a name, for example {group}: {{name: {options.names(group)[0]}}}"
        )
    name = choice["name"]
    option = options.load(group, name, f"{group}.name")
    return name, overlay(option, {key: value for key, value in choice.items() if key != "name"})


def _build(cls: type[T], given: Mapping[str, Any], group: str, choice: Mapping[str, Any], file: str) -> T:
    """Build, and name the file that holds the wrong value in the error."""
    try:
        return build(cls, given, group)
    except ConfigError as error:
        from_user = is_user_choice(str(error), group, choice) or ": missing;" in str(error)
        raise ConfigError(f"{'params.yaml' if from_user else file}: {error}") from None


def is_user_choice(message: str, group: str, choice: Mapping[str, Any]) -> bool:
    """Whether the value of the key that an error message begins with (group.key.key: ...) comes from params.yaml."""
    value: Any = choice
    for key in message.split(":", 1)[0].removeprefix(f"{group}.").split("."):
        value = value.get(key.split("[")[0]) if isinstance(value, Mapping) else None
    return value is not None


GOALS = (LATENCY, MEMORY)
OWN_KEYS = ("format", "scheme", "engine", "load", "file", "prune", "min_sqnr_db")


def variants(choices: Mapping[str, Any], options: Options) -> dict[str, Variant]:
    if not choices:
        raise ConfigError("params.yaml: variants: empty; name at least one, for example onnx-fp32: {format: onnx, scheme: fp32}")
    return {str(name): variant(str(name), choice, options) for name, choice in share_prunes(choices).items()}


def variant(name: str, choice: Any, options: Options) -> Variant:
    """One checked variant. A scheme that the format does not offer is accepted here; quantize records the variant as failed."""
    where = f"params.yaml: variants.{name}"
    if not isinstance(choice, Mapping):
        raise ConfigError(f"{where}: {choice!r} must be a mapping, for example {{format: onnx, scheme: int8-static}}")
    for key in ("format", "scheme"):
        if not isinstance(choice.get(key), str):
            raise ConfigError(f"{where}.{key}: missing; {nearest('', options.names(key))}")
    form = options.load("format", choice["format"], f"variants.{name}.format")
    scheme = options.load("scheme", choice["scheme"], f"variants.{name}.scheme")
    check_name(name, choice["format"], choice["scheme"], where)
    given = {key: value for key, value in choice.items() if key not in OWN_KEYS}
    defaults: Mapping[str, Any] = form["schemes"].get(choice["scheme"]) or {}
    if choice["scheme"] in form["schemes"]:
        check_keys(given, defaults, f"{choice['format']} {choice['scheme']}", where)
        given = overlay(defaults, given)
        check_values(given, part(form["module"], "make").SETTINGS.get(choice["scheme"], {}), where)
    choice = {**choice, "engine": expand_engine(choice.get("engine"))}
    engine = join_section("engine", choice, form, {**part(form["module"], "run").ENGINE, "auto": GOALS}, where)
    load = choice.get("load") or {}
    if not isinstance(load, Mapping):
        raise ConfigError(f"{where}.load: {load!r} must be a mapping of settings, for example {{mode: whole}}")
    goal, fixed = engine.pop("auto", None), [key for key, value in choice["engine"].items() if value is not None and key != "auto"]
    file = join_section("file", choice, form, part(form["module"], "store").FILE, where)
    fields = {
        **given,
        "name": name,
        "format": choice["format"],
        "scheme": choice["scheme"],
        "module": form["module"],
        "min_sqnr_db": scheme["min_sqnr_db"] if choice.get("min_sqnr_db") is None else choice["min_sqnr_db"],
        "min_device_sqnr_db": scheme["min_device_sqnr_db"],
        "load": dict(load),
        "file": file,
        "engine": engine,
        "auto": {"goal": goal, "fixed": fixed} if goal else None,
        "prune": overlay({}, choice["prune"]) if isinstance(choice.get("prune"), Mapping) else choice.get("prune"),
    }
    made = build(Variant, {key: value for key, value in fields.items() if value is not None}, where)
    check_removed(made, defaults, where)
    check_prune(made.prune, f"{where}.prune")
    return made


def expand_engine(engine: Any) -> Any:
    """`engine: auto` is short for {auto: latency}."""
    return {"auto": LATENCY} if engine == "auto" else engine or {}


def join_section(
    section: str, choice: Mapping[str, Any], form: Mapping[str, Any], allowed: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Settings that a format has for all schemes: the user's over those of the format's yaml, without null."""
    given, defaults = choice.get(section) or {}, form.get(section) or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}.{section}: {given!r} must be a mapping of settings; {nearest('', defaults)}")
    check_keys(given, defaults, f"the {section} of {choice['format']}", f"{where}.{section}")
    settings = overlay(defaults, given)
    check_values(settings, allowed, f"{where}.{section}")
    return {key: value for key, value in settings.items() if value is not None}


def formats(made: Mapping[str, Variant], model: Plugin, options: Options) -> dict[str, Format]:
    """All formats of conf/format/, and whether they are used: by a variant, or to convert to another format."""
    loaded = {name: options.load("format", name, "variants") for name in options.names("format")}
    source = load_module(model.module, f"conf/model/{model.name}.yaml").FORMAT
    used: set[str] = set()
    wanted = [variant.format for variant in made.values()]
    while wanted:
        name = wanted.pop()
        sources = part(loaded[name]["module"], "make").SOURCES
        if name not in used and source not in sources and sources[0] in loaded:
            wanted.append(sources[0])
        used.add(name)
    return {name: Format(form["module"], name in used, form.get("convert") or {}) for name, form in loaded.items()}


def collect_needs(made: Mapping[str, Variant], kind: str, options: Options) -> dict[str, dict[str, Any]]:
    """What scan-layers or train-qat has to run for the variants: scheme -> key -> settings. kind: scan or tuning.

    Every scheme is a key, so that variants of one scheme do not depend on what another needs.
    """
    found: dict[str, dict[str, Any]] = {scheme: {} for scheme in options.names("scheme")}
    for variant in made.values():
        need = getattr(variant, kind)
        if need is not None:
            found[variant.scheme][need.key] = need
    return found


SECTIONS = ("data", "model", "train", "device", "bench", "budget")
TOP_LEVEL = ("seed", *SECTIONS, "reference", "variants")
OPTIONAL = {"task": {"name": "classification"}, "experiment": None, "tracking_uri": None}  # with their defaults
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml writes 10 times as fast


def compose(params: Path, conf: Path) -> Config:
    """The whole checked configuration. ConfigError names the file, the key, the value and what is allowed."""
    options = Options(conf)
    return compose_choices(with_profile(read_choices(params), options), options)


def with_profile(choices: dict[str, Any], options: Options) -> dict[str, Any]:
    """The choices with the bench.name of the environment variable EDGEWISE_PROFILE, if it is set: `make repro PROFILE=smoke` measures
    for another time once and leaves params.yaml as it is."""
    name, bench = os.environ.get(PROFILE), choices.get("bench")
    if not name or not isinstance(bench, dict):
        return choices
    if name not in options.names("bench"):
        raise ConfigError(f"{PROFILE}: {name!r}: no such file in conf/bench/; {nearest(name, options.names('bench'))}")
    print(f"bench.name: {name}, as {PROFILE} says; params.yaml says {bench.get('name')}", file=sys.stderr)
    return {**choices, "bench": {**bench, "name": name}}


def read_profile(params: Path) -> str | None:
    """bench.name of params.yaml, whatever the environment says; None where it has none."""
    bench = read_choices(params).get("bench")
    return bench.get("name") if isinstance(bench, dict) else None


def compose_choices(choices: dict[str, Any], options: Options) -> Config:
    """As `compose`, from choices already in memory (one point of a sweep)."""
    check_top_level(choices)
    choices = OPTIONAL | {key: value for key, value in choices.items() if value is not None}
    data, model, task = (plugin(group, choices[group], options) for group in ("data", "model", "task"))
    data = fit_targets(task, data, choices["data"], options)
    check_task(task, data)
    check_sizes(data, model=model, task=task)
    made = variants(choices["variants"], options)
    reference = choices["reference"]
    if not isinstance(reference, str) or reference not in made:
        raise ConfigError(f"params.yaml: reference: {reference!r} is not a variant; {nearest(reference, made)}")
    if (auto := made[reference].auto) is not None:
        raise ConfigError(
            f"params.yaml: variants.{reference}.engine.auto: '{auto.goal}', but this is the reference, whose settings must not "
            "change; remove it, or tune another variant"
        )
    return Config(
        experiment=name_experiment(choices["experiment"], model, data),
        tracking_uri=check_tracking_uri(choices["tracking_uri"]),
        seed=choices["seed"],
        data=data,
        model=model,
        train=section(Train, "train", choices["train"], options),
        device=plugin("device", choices["device"], options),
        bench=add_answer(section(Bench, "bench", choices["bench"], options), task),
        budget=section(Budget, "budget", choices["budget"], options),
        reference=reference,
        variants=made,
        formats=formats(made, model, options),
        task=task,
        scans=collect_needs(made, "scan", options),
        tunings=collect_needs(made, "tuning", options),
        margins=find_margins({group: _join(group, choices[group], options) for group in MARGINS}, choices, task),
        prunings={name: variant.pruning for name, variant in made.items()},
    )


def fit_targets(task: Plugin, data: Plugin, choice: dict[str, Any], options: Options) -> Plugin:
    """The data with the kind of targets that the task needs, where the data offers it and the user has not chosen one himself."""
    wanted = task.load().TARGETS
    offered = next((field.metadata.get("choices") for field in dataclasses.fields(data.load().Settings) if field.name == "targets"), None)
    if choice.get("targets") is not None or wanted not in (offered or ()):
        return data
    return plugin("data", {**choice, "targets": wanted}, options)


def add_answer(bench: Bench, task: Plugin) -> Bench:
    """The profile with what the task does after the model, where that is timed and more than an argmax."""
    module = task.load()
    if bench.scope != "end_to_end" or module.timed_answer is None:
        return bench
    return dataclasses.replace(bench, answer=module.timed_answer(build(module.Settings, task.settings, "task")))


def check_task(task: Plugin, data: Plugin) -> None:
    """ConfigError if the data lacks what the task evaluates."""
    module, targets = task.load(), data.settings.get("targets", "classes")
    if module.TARGETS not in (None, targets):
        raise ConfigError(
            f"params.yaml: task.name: '{task.name}' needs data.targets {module.TARGETS!r}, but it is {targets!r}; change one of them"
        )
    for key in module.NEEDS:
        if data.settings.get(key) is None:
            raise ConfigError(f"params.yaml: data.{key}: missing; the task '{task.name}' needs it; give it as data.{key}=VALUE")


def check_sizes(data: Plugin, **others: Plugin) -> None:
    """ConfigError where pictures of various sizes meet a model or a task that takes one size."""
    own = getattr(data.load().Settings, "OWN_SIZES", None)
    for group, other in others.items() if own is not None and data.settings["resize"] == own else ():
        if not getattr(other.load(), "OPEN_SIZES", False):
            raise ConfigError(
                f"params.yaml: data.resize: '{own}' needs model.name=onnx_file and task.name=none, but {group}.name is '{other.name}';"
                " change it, or bring all pictures to data.image_size, for example with data.resize=letterbox"
            )


def read_choices(params: Path) -> dict[str, Any]:
    """params.yaml as plain dicts; a key that is there twice is an error, not a silent overwrite."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        choices = OmegaConf.to_container(OmegaConf.load(params), resolve=True)
    except FileNotFoundError:
        raise ConfigError(f"{params} does not exist; run the command from the top folder of the project") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{params}: line {line}: {error.problem}; fix the YAML (each key once, spaces not tabs)") from None
    except (OmegaConfBaseException, UnicodeDecodeError, yaml.YAMLError) as error:
        key = getattr(error, "full_key", None)
        raise ConfigError(f"{params}: {f'{key}: ' if key else ''}{str(error).splitlines()[0]}; give a plain value, in UTF-8") from None
    except OSError as error:
        if error.errno:
            raise
        choices = None  # OmegaConf's error for a file that holds one number
    if not isinstance(choices, dict):
        raise ConfigError(f"{params}: must hold the sections {', '.join(TOP_LEVEL)}")
    return {str(key): value for key, value in choices.items()}


def check_top_level(choices: dict[str, Any]) -> None:
    for key in choices:
        if key not in (*TOP_LEVEL, *OPTIONAL):
            raise ConfigError(f"params.yaml: {key}: unknown section; {nearest(key, (*TOP_LEVEL, *OPTIONAL))}")
    for key in TOP_LEVEL:
        if choices.get(key) is None:
            raise ConfigError(f"params.yaml: {key}: missing; every one of {', '.join(TOP_LEVEL)} must be there")
    seed = choices["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f"params.yaml: seed: {seed!r} must be an integer from 0 to {2**32 - 1}")
    if not isinstance(choices["variants"], dict):
        raise ConfigError("params.yaml: variants: must be a mapping of NAME: {format: ..., scheme: ...}")


def write(config: Config, path: Path = PATH, more: Mapping[str, Any] | None = None) -> None:
    """models/config.yaml in a fixed order, through a temporary file. more: of stage_code.depended_on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    head = "# Written by stages.compose from params.yaml and conf/. Edit those, not this.\n"
    plain = to_plain(config) | dict(more or {})
    temporary.write_text(head + yaml.dump(plain, Dumper=DUMPER, sort_keys=True, allow_unicode=True, width=140), encoding="utf-8")
    temporary.replace(path)
