"""track: write all results to MLflow, from files alone. Running it twice adds nothing.

    python -m stages.track

Reads   models/config.yaml, metrics/, the manifests and reports in models/, dvc.lock
Writes  .edgewise/track-receipt.json; mlflow.db and mlartifacts/ in this folder, or the server that MLFLOW_TRACKING_URI or, where it is not
        set, tracking_uri of params.yaml names
"""

import sys

from edgewise.errors import UserError, run_main
from edgewise.track.tracking import track_pipeline


def main() -> None:
    if len(sys.argv) > 1:
        raise UserError(f"stages.track takes no arguments, not {' '.join(sys.argv[1:])!r}; for options see `edgewise track --help`")
    track_pipeline(force=False)


if __name__ == "__main__":
    run_main(main)
