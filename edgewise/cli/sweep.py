"""Run a sweep from its command line to its conclusion."""

import sys
from pathlib import Path

from edgewise.errors import ConfigError


def run(arguments: list[str]) -> int:
    """arguments: Hydra's overrides, and --name NAME. The exit code: 0, or 1 where a point failed."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from edgewise.sweep import app, conclusion, plan

    name, overrides = plan.split_off_name(arguments)
    try:
        app.run_sweep(name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    except KeyboardInterrupt:
        print(f"sweep {name}: {conclusion.count_finished(plan.sweep_folder(Path.cwd(), name))} finished and kept", file=sys.stderr)
        raise
    return conclusion.conclude(plan.read_plan(plan.sweep_folder(Path.cwd(), name)))
