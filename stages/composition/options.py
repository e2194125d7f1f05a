"""conf/ as Hydra sees it: groups of options, each option one yaml."""

import copy
from pathlib import Path
from typing import Any

from stages.core.errors import ConfigError
from stages.core.settings import nearest


class Options:
    """The library of options below `conf`. `load(group, name)` composes one of them with Hydra."""

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
            raise ConfigError(f"params.yaml: {where}: {name!r} is no option of conf/{group}/; {nearest(name, self.names(group))}")
        if (group, name) not in self.loaded:
            self.loaded[group, name] = self._compose(group, name)
        return copy.deepcopy(self.loaded[group, name])

    def _compose(self, group: str, name: str) -> dict[str, Any]:
        from hydra import compose, initialize_config_dir
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            with initialize_config_dir(str(self.conf.resolve()), version_base="1.3"):
                composed = compose(overrides=[f"+{group}@option={quoted(name)}"])
            return OmegaConf.to_container(composed, resolve=True)["option"]  # type: ignore[index,call-overload,return-value]
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"conf/{group}/{name}.yaml: {' '.join(str(error).split())}; mend the file") from None


def quoted(text: str) -> str:
    """A text as the value of a Hydra override that is this text: commas sweep nothing and brackets call nothing."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()
