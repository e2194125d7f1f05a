"""track: everything into MLflow, from the files alone; running it twice adds nothing.

    python -m stages.track            write what is missing
    python -m stages.track --force    look everything up in the store, whatever the receipt says
    python -m stages.track --sweep NAME    write the sweep of metrics/sweeps/NAME.json: a parent run and its children

Reads   models/config.yaml, metrics/, the manifests and reports in models/, dvc.lock
Writes  mlflow.db and mlartifacts/ in this folder, or the server that MLFLOW_TRACKING_URI names; .edgewise/track-receipt.json
"""

import sys

from edgewise.errors import ConfigError, run_main
from edgewise.track.tracking import track_pipeline, track_sweep


def main() -> None:
    match sys.argv[1:]:
        case ["--sweep", name]:
            track_sweep(name)
        case [] | ["--force"] as given:
            track_pipeline(force=bool(given))
        case given:
            raise ConfigError(f"{' '.join(given)!r} is no option of track; allowed: --force, --sweep NAME, or nothing")


if __name__ == "__main__":
    run_main(main)
