"""Settings that every data set has."""

from dataclasses import dataclass

from stages.core.errors import ConfigError
from stages.core.settings import option
from stages.core.splitting import Shares

DEFECT = "defect"


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    splits: Shares = option(Shares())
    normal: str | None = option(None, "label of samples without a defect; with it a model is also judged as a detector of defects")
    merge_defects: bool = option(False, f"all labels but the normal one become '{DEFECT}'")

    def __post_init__(self) -> None:
        if self.merge_defects and self.normal is None:
            raise ConfigError("data.merge_defects: needs data.normal, the label of samples without a defect")

    def target(self, label: str) -> str:
        """The label that a model learns."""
        return DEFECT if self.merge_defects and label != self.normal else label
