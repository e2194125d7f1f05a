"""The errors of the library, under their new name."""

from stages.core.errors import ConfigError as ConfigError
