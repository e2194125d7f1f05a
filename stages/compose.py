"""compose: join params.yaml (choices) with conf/ (options), check every value, write models/config.yaml.

    python -m stages.compose

Reads   params.yaml, conf/; CODE of the other stage scripts and the code that they name; versions of the installed runtimes
Writes  models/config.yaml, which every other stage reads: the settings, the digest of each stage's code, the runtimes of each format

Runs always, in about a second; the stages after it only where something that they depend on has changed.

Null in params.yaml means conf's value. A mistake ends with exit code 2 and one line that names file, key, value and what is allowed.
"""

import importlib.util
import sys
from pathlib import Path

PARAMS, CONF = Path("params.yaml"), Path("conf")


def main() -> None:
    from edgewise.config.compose import compose, write
    from edgewise.config.stage_code import depended_on
    from edgewise.errors import UserError

    if len(sys.argv) > 1:
        raise UserError(f"stages.compose takes no arguments, not {' '.join(sys.argv[1:])!r}; for options see `edgewise compose --help`")
    config = compose(PARAMS, CONF)
    write(config, more=depended_on(config))


def check_environment() -> None:
    """A `dvc repro` with another python than the project's ends here, in one line."""
    missing = [name for name in ("hydra", "yaml", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"error: {', '.join(missing)} not installed in {sys.executable}; "
            "enter the environment of Edgewise first, for example: . .venv/bin/activate (in the repository, `make setup` makes it)"
        )


if __name__ == "__main__":
    check_environment()
    from edgewise.errors import run_main

    run_main(main)
