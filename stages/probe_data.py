"""probe-data: notice changes of the user's own files: the data set, and what the model's settings name.

    python -m stages.probe_data

Reads   the data, model and train sections of models/config.yaml
Writes  metrics/data.json   the digest of the data set
        metrics/model.json  sha256 of each file that a setting of the model names (path, weights), and of the teacher's (train.teacher)

Stops where a file is missing that DVC keeps (`dvc pull` brings it) or was written over in DVC's cache, and where the task needs labels and
the data has none. Always runs; the stages after it run only if a digest differs.
"""

from edgewise.artifacts.dvc_files import require_pulled, require_unspoiled
from edgewise.config.schema import read
from edgewise.data.dataset import check_labels, probe, probe_model
from edgewise.errors import ConfigError, DataError, ModelError, run_main


def main() -> None:
    configuration = read()
    for require in (require_pulled, require_unspoiled):
        require("data", configuration.data.settings, DataError)
        require("model", configuration.model.settings, ModelError)
        require("train", {"teacher": configuration.train.teacher}, ConfigError)
    check_labels(configuration.task, probe(configuration.data))
    probe_model({**configuration.model.settings, "teacher": configuration.train.teacher})


if __name__ == "__main__":
    run_main(main)
