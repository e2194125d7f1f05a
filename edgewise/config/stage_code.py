"""What stages depend on beside data and settings: the digest of the code behind each, as compose writes it into models/config.yaml under
`code`, and the installed runtimes.

A stage script says in CODE which parts of the library its result depends on, with placeholders for plugins, and in FOREACH whether it runs
once for each of the `variants` or of the `formats`. A script without CODE belongs to a stage that always runs. Scripts are read here, not
imported: they are the user's to edit.

    {data} {source} {task} {device}   the module that the section names, and the callable of the user that its settings name
    {format}                          the module of the format, in a stage for each variant or format
    {reference}                       the module of the reference's format
    {between}                         modules of the formats on the way from a fine-tuned or pruned source; none for other variants
    {scanner}                         scan.py of the source's format; none where it has none
    {formats}                         the modules of the formats of all variants

and for what many stages share, by what they do with a model:

    {samples}                         reads samples and gives them to a model
    {proof}                           runs a model here and compares its outputs with the source's
    {boxes}                           reads boxes from outputs, in the picture's own pixels
    {objectives}                      scores a net while it is trained, by the kind of its targets
    {trial}                           tries an imported model on labelled samples, whose preprocessing may be wrong
"""

import ast
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.config import syntax
from edgewise.config.digests import Digests, expand
from edgewise.config.runtimes import describe, installed_runtimes
from edgewise.config.schema import Config, Plugin, part
from edgewise.errors import ConfigError

STAGES = "stages"
EACH = ("variants", "formats")
Plugins = Mapping[str, Sequence[str]]
BOXES = ("edgewise.agent.decoding", "edgewise.agent.geometry")
GROUPS: Plugins = {  # placeholder -> modules; a module stands for what it imports of its own package, too
    "samples": ("edgewise.artifacts.samples", "edgewise.agent.preprocess", "edgewise.agent.ragged"),
    "proof": ("edgewise.proof.making", "edgewise.agent.sessions", "edgewise.stats.agreement"),
    "boxes": BOXES,
    "objectives": (*BOXES, "edgewise.stats.average_precision", "edgewise.stats.mean_iou"),
    "trial": ("edgewise.agent.class_maps", "edgewise.stats.paired", "edgewise.stats.working_point"),
}


@dataclass(frozen=True)
class StageCode:
    """What a stage script declares. foreach: one of EACH, or None for a stage that runs once."""

    code: tuple[str, ...]
    foreach: str | None


def depended_on(config: Config, root: Path = Path()) -> dict[str, Any]:
    """What DVC compares beside the settings: the code of each stage (`code`), and the runtimes that are installed here (`runtimes`)."""
    with Digests(root) as digests:
        return {
            "code": stage_digests(config, digests),
            "runtimes": installed_runtimes(config.formats) | {"prune": describe(["torch_pruning"])},
        }


def stage_digests(config: Config, digests: Digests) -> dict[str, Any]:
    """{stage: digest}, for a stage that runs for each variant or format {stage: {name: digest}}; stages named as in dvc.yaml.

    Raises ConfigError for a wrong CODE and for code that cannot be found or read.
    """
    common = plugins(config)
    found: dict[str, Any] = {}
    for path in sorted((digests.root / STAGES).glob("*.py")):
        declared = read_declared(path)
        if declared is None:
            continue
        own = (f"{STAGES}.{path.stem}",)
        if declared.foreach is None:
            digest: Any = digests.digest(own + expand(declared.code, **common))
        else:
            every = for_each(config, declared.foreach)
            digest = {name: digests.digest(own + expand(declared.code, **common, **special)) for name, special in every.items()}
        found[path.stem.replace("_", "-")] = digest
    return found


def read_declared(path: Path) -> StageCode | None:
    """CODE and FOREACH of a stage script; None where it has no CODE."""
    try:
        tree = syntax.parse(path.read_bytes(), str(path))
        values = dict(constants(tree, ("CODE", "FOREACH")))
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise ConfigError(f"{path}{line}: {error.msg}; correct it, then run the same command again") from None
    except ValueError:
        raise ConfigError(f"{path}: CODE and FOREACH must be plain literals, since the script is read without running it") from None
    code, foreach = values.get("CODE"), values.get("FOREACH")
    if code is None:
        return None
    if not isinstance(code, tuple) or not all(isinstance(name, str) for name in code):
        raise ConfigError(f'{path}: CODE: {code!r} must be a tuple of strings, for example ("edgewise.proof", "{{task}}")')
    if foreach not in (None, *EACH):
        raise ConfigError(f"{path}: FOREACH: {foreach!r}; allowed: {', '.join(EACH)}, or no FOREACH at all")
    return StageCode(code, foreach)


def constants(tree: ast.Module, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """What is assigned at module level. ValueError where it is no literal."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            if isinstance(target, ast.Name) and target.id in names and isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
                yield target.id, ast.literal_eval(node.value)


def plugins(config: Config) -> dict[str, Sequence[str]]:
    """What the placeholders of every stage stand for."""
    return {
        **GROUPS,
        "data": with_callable(config.data),
        "source": with_callable(config.model),
        "task": with_callable(config.task),
        "device": with_callable(config.device),
        "reference": (config.variants[config.reference].module,),
        "scanner": scanner(config),
        "formats": tuple(sorted({variant.module for variant in config.variants.values()})),
    }


def with_callable(plugin: Plugin) -> tuple[str, ...]:
    """The module of a section, and the user's function in the setting `callable`."""
    given = plugin.settings.get("callable")
    return (plugin.module, given) if isinstance(given, str) else (plugin.module,)


def scanner(config: Config) -> tuple[str, ...]:
    """scan.py of the source's format, as compress.sensitivity finds it."""
    form = config.formats.get(config.model.load().FORMAT)
    name = f"{form.module}.scan" if form else ""
    return (name,) if form and importlib.util.find_spec(name) else ()


def for_each(config: Config, foreach: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """The placeholders that differ from variant to variant, or from format to format."""
    if foreach == "formats":
        return {name: {"format": (form.module,), "between": ()} for name, form in config.formats.items()}
    return {
        name: {"format": (variant.module,), "between": between(config, variant.format) if variant.tuning or variant.prune else ()}
        for name, variant in config.variants.items()
    }


def between(config: Config, name: str) -> tuple[str, ...]:
    """Modules of the formats through which a source of the configuration comes to format `name`, without its own."""
    source, found, seen = config.model.load().FORMAT, [], {name}
    while source not in (ways := part(config.formats[name].module, "make").SOURCES):
        if not ways or ways[0] not in config.formats or ways[0] in seen:  # this source does not come here; torch reads torch alone
            break
        name = ways[0]
        seen.add(name)
        found.append(config.formats[name].module)
    return tuple(found)
