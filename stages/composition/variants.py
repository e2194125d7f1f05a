"""The variants: one format with one scheme each, its settings checked against what the format's tool really has."""

from collections.abc import Mapping
from typing import Any

from stages.composition.options import Options
from stages.composition.sections import load_module, overlay
from stages.core.config import VARIANT_NAME, Format, Plugin, Variant, part
from stages.core.errors import ConfigError
from stages.core.settings import build, nearest
from stages.core.variant import LATENCY, MEMORY

GOALS = (LATENCY, MEMORY)
OWN_KEYS = ("format", "scheme", "engine", "load", "file")


def variants(choices: Mapping[str, Any], options: Options) -> dict[str, Variant]:
    if not choices:
        raise ConfigError("params.yaml: variants: empty; name at least one, for example onnx-fp32: {format: onnx, scheme: fp32}")
    return {str(name): variant(str(name), choice, options) for name, choice in choices.items()}


def variant(name: str, choice: Any, options: Options) -> Variant:
    """One checked variant. A scheme that the format does not offer passes here; quantize records it as failed, naming those it has."""
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
    if choice["scheme"] in form["schemes"]:
        defaults = form["schemes"][choice["scheme"]] or {}
        check_keys(given, defaults, f"{choice['format']} {choice['scheme']}", where)
        given = overlay(defaults, given)
        check_values(given, part(form["module"], "make").SETTINGS.get(choice["scheme"], {}), where)
    choice = {**choice, "engine": spelt_out(choice.get("engine"))}
    engine = own("engine", choice, form, {**part(form["module"], "run").ENGINE, "auto": GOALS}, where)
    load = choice.get("load") or {}
    if not isinstance(load, Mapping):
        raise ConfigError(f"{where}.load: {load!r} must be a mapping of settings, for example {{mode: whole}}")
    goal, fixed = engine.pop("auto", None), [key for key, value in choice["engine"].items() if value is not None and key != "auto"]
    file = own("file", choice, form, part(form["module"], "store").FILE, where)
    fields = {
        **given,
        "name": name,
        "format": choice["format"],
        "scheme": choice["scheme"],
        "module": form["module"],
        "min_sqnr_db": scheme["min_sqnr_db"],
        "min_device_sqnr_db": scheme["min_device_sqnr_db"],
        "load": dict(load),
        "file": file,
        "engine": engine,
        "auto": {"goal": goal, "fixed": fixed} if goal else None,
    }
    return build(Variant, {key: value for key, value in fields.items() if value is not None}, where)


def spelt_out(engine: Any) -> Any:
    """`engine: auto` is short for {auto: latency}."""
    return {"auto": LATENCY} if engine == "auto" else engine or {}


def own(section: str, choice: Mapping[str, Any], form: Mapping[str, Any], allowed: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a format offers whatever the scheme: the section's settings, the user's over those of the format's yaml; without null."""
    given, defaults = choice.get(section) or {}, form.get(section) or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}.{section}: {given!r} must be a mapping of settings; {nearest('', defaults)}")
    check_keys(given, defaults, f"the {section} of {choice['format']}", f"{where}.{section}")
    settings = overlay(defaults, given)
    check_values(settings, allowed, f"{where}.{section}")
    return {key: value for key, value in settings.items() if value is not None}


def check_name(name: str, form: str, scheme: str, where: str) -> None:
    wanted = f"{form}-{scheme}"
    if not VARIANT_NAME.fullmatch(name) or not (name == wanted or name.startswith(f"{wanted}-")):
        raise ConfigError(
            f"{where}: a variant is named <format>-<scheme>[-more] in small letters and digits; here {wanted} or {wanted}-mine"
        )


def check_keys(given: Mapping[str, Any], defaults: Mapping[str, Any], whose: str, where: str) -> None:
    """Only settings that the format's yaml lists for this scheme exist, at every depth."""
    for key, value in given.items():
        if value is not None and key not in defaults:
            raise ConfigError(f"{where}.{key}: {whose} has no such setting; {nearest(key, defaults)}")
        if isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping):
            check_keys(value, defaults[key], whose, f"{where}.{key}")


def check_values(given: Mapping[str, Any], allowed: Mapping[str, tuple | range | None], where: str) -> None:
    """SETTINGS of the format's make.py, ENGINE of its run.py: dotted setting -> the values that its tool has; None: not known here."""
    for dotted, values in allowed.items():
        value: Any = given
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None or values is None or (value in values and type(value) in map(type, values)):
            continue
        told = f"from {values[0]} to {values[-1]}" if isinstance(values, range) else nearest(value, map(str, values))
        raise ConfigError(f"{where}.{dotted}: {value!r}; {told}")


def formats(made: Mapping[str, Variant], model: Plugin, options: Options) -> dict[str, Format]:
    """Every format of conf/format/, and whether it has to be converted: for a variant of its own or on the way to another."""
    loaded = {name: options.load("format", name, "variants") for name in options.names("format")}
    source = load_module(model.module, f"conf/model/{model.name}.yaml").FORMAT
    used: set[str] = set()
    wanted = [variant.format for variant in made.values()]
    while wanted:
        name = wanted.pop()
        ways = part(loaded[name]["module"], "make").SOURCES
        if name not in used and source not in ways and ways[0] in loaded:
            wanted.append(ways[0])
        used.add(name)
    return {name: Format(form["module"], name in used, form.get("convert") or {}) for name, form in loaded.items()}


def errands(made: Mapping[str, Variant], kind: str, options: Options) -> dict[str, dict[str, Any]]:
    """What the variants need of a stage before quantize, each errand once: scheme -> key -> its settings. Every scheme is there, so
    that the variants of one depend on nothing that another one needs. kind: scan or tuning."""
    found: dict[str, dict[str, Any]] = {scheme: {} for scheme in options.names("scheme")}
    for variant in made.values():
        errand = getattr(variant, kind)
        if errand is not None:
            found[variant.scheme][errand.key] = errand
    return found
