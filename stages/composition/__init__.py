"""How a configuration comes about: choices (params.yaml) over options (conf/), section by section, then the variants."""

import os
from pathlib import Path
from typing import Any

import yaml

from stages.composition.options import Options
from stages.composition.sections import plugin, section
from stages.composition.variants import errands, formats, variants
from stages.core.config import PATH, Bench, Budget, Config, Plugin, Train, to_plain
from stages.core.errors import ConfigError
from stages.core.settings import nearest

SECTIONS = ("data", "model", "train", "device", "bench", "budget")
TOP_LEVEL = ("seed", *SECTIONS, "reference", "variants")
OPTIONAL = {"task": {"name": "classification"}}  # what holds where the section is left out


def compose(params: Path, conf: Path) -> Config:
    """The whole checked configuration. ConfigError names the file, the key, the value and what is allowed."""
    return compose_choices(read_choices(params), Options(conf))


def compose_choices(choices: dict[str, Any], options: Options) -> Config:
    """As `compose`, from choices already in memory (one point of a sweep)."""
    check_top_level(choices)
    choices = OPTIONAL | {key: value for key, value in choices.items() if value is not None}
    data, model, task = (plugin(group, choices[group], options) for group in ("data", "model", "task"))
    check_task(task, data)
    made = variants(choices["variants"], options)
    reference = choices["reference"]
    if not isinstance(reference, str) or reference not in made:
        raise ConfigError(f"params.yaml: reference: {reference!r} is no variant; {nearest(reference, made)}")
    if (auto := made[reference].auto) is not None:
        raise ConfigError(
            f"params.yaml: variants.{reference}.engine.auto: '{auto.goal}', but all others are compared with this variant, "
            "whose settings must not move; leave it out, or give the tuned one a name of its own"
        )
    return Config(
        seed=choices["seed"],
        data=data,
        model=model,
        train=section(Train, "train", choices["train"], options),
        device=plugin("device", choices["device"], options),
        bench=section(Bench, "bench", choices["bench"], options),
        budget=section(Budget, "budget", choices["budget"], options),
        reference=reference,
        variants=made,
        formats=formats(made, model, options),
        task=task,
        scans=errands(made, "scan", options),
        tunings=errands(made, "tuning", options),
    )


def check_task(task: Plugin, data: Plugin) -> None:
    """ConfigError where the data has not what the task judges."""
    module, targets = task.load(), data.settings.get("targets", "classes")
    if module.TARGETS not in (None, targets):
        raise ConfigError(f"params.yaml: task.name: '{task.name}' judges {module.TARGETS}, data.targets is {targets!r}; change one of them")
    for key in module.NEEDS:
        if data.settings.get(key) is None:
            raise ConfigError(f"params.yaml: data.{key}: missing; the task '{task.name}' needs it; give it as data.{key}=VALUE")


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
        raise ConfigError(f"{params}: line {line}: {error.problem}; mend the YAML (each key once, spaces not tabs)") from None
    except (OmegaConfBaseException, UnicodeDecodeError, yaml.YAMLError) as error:
        key = getattr(error, "full_key", None)
        raise ConfigError(f"{params}: {f'{key}: ' if key else ''}{str(error).splitlines()[0]}; give a plain value, in UTF-8") from None
    except OSError as error:
        if error.errno:
            raise
        choices = None  # OmegaConf's word for a file that holds one number
    if not isinstance(choices, dict):
        raise ConfigError(f"{params}: must hold the sections {', '.join(TOP_LEVEL)}")
    return {str(key): value for key, value in choices.items()}


def check_top_level(choices: dict[str, Any]) -> None:
    for key in choices:
        if key not in (*TOP_LEVEL, *OPTIONAL):
            raise ConfigError(f"params.yaml: {key}: no such section; {nearest(key, (*TOP_LEVEL, *OPTIONAL))}")
    for key in TOP_LEVEL:
        if choices.get(key) is None:
            raise ConfigError(f"params.yaml: {key}: missing; every one of {', '.join(TOP_LEVEL)} must be there")
    seed = choices["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f"params.yaml: seed: {seed!r} must be a whole number from 0 to {2**32 - 1}")
    if not isinstance(choices["variants"], dict):
        raise ConfigError("params.yaml: variants: must be a mapping of NAME: {format: ..., scheme: ...}")


def write(config: Config, path: Path = PATH) -> None:
    """models/config.yaml in a fixed order, through a temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    head = "# Written by stages.compose from params.yaml and conf/. Edit those, not this.\n"
    temporary.write_text(head + yaml.safe_dump(to_plain(config), sort_keys=True, allow_unicode=True, width=140), encoding="utf-8")
    temporary.replace(path)
