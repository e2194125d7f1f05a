"""sweep: many sets of choices, each run as `dvc exp run` would run it, and judged together.

    edgewise sweep variants.onnx-int8-static.calibration.method=minmax,entropy variants.onnx-int8-static.per_channel=true,false
    edgewise sweep +search=pareto                            a search instead of a grid, of conf/sweep/search/
    edgewise sweep hydra/launcher=joblib hydra.launcher.n_jobs=4 ...      or submitit_local, submitit_slurm, ray
    edgewise sweep --name first ...                          a name of your own, for metrics/sweeps/first.json

Reads   params.yaml, whose keys are the override keys, conf/sweep/, and the whole project as it is now
Writes  one experiment for each point (`dvc exp show`), metrics/sweeps/NAME.json and .png, runs in MLflow; .edgewise/sweeps/NAME: logs

Nothing of yours is edited. What is finished stays: the same command goes on where it was interrupted.
"""

import sys
from pathlib import Path

from edgewise.errors import ConfigError, run_main


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--multirun", "-m")]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
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


if __name__ == "__main__":
    run_main(main)
