"""evaluate@V: the variant on the whole test split, through its format's own session, judged as the task says.

    python -m stages.evaluate VARIANT

Reads   models/variants/V, models/data (test split; validation for a threshold)
Writes  metrics/evaluate/V.json (a few scalars), models/evaluate/V (outputs per sample, details such as the confusion; its manifest
        says how an answer is made of outputs, with a threshold that was chosen on validation where the task has one)
"""

import sys

from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.records import Evaluation, Failed
from edgewise.config import schema
from edgewise.errors import ModelError, VariantFailed, run_main
from edgewise.proof.isolation import fail_alone
from edgewise.tasks.evaluation import METRICS, MODELS, evaluate

FOREACH = "variants"
CODE = (
    "edgewise.tasks.evaluation",
    "{task}",
    "{format}.run",
    "{samples}",
    "{boxes}",
    "edgewise.agent.class_maps",
    "edgewise.agent.sessions",
    "edgewise.stats",
    "edgewise.plugins",
    "edgewise.proof.isolation",
    "edgewise.artifacts.records",
)


def main() -> None:
    settings = schema.read()
    variant = settings.variant(sys.argv[1] if len(sys.argv) == 2 else "")
    result: Evaluation | Failed
    try:
        made = artifact.require_ok(artifact.read(MODELS / "variants" / variant.name), variant.name)
        with fail_alone(f"judging {variant.name}"):
            result = evaluate(variant, made, settings.task)
    except VariantFailed as failure:
        result = record_failure(variant.name, str(failure))
    except ModelError as error:  # outputs that the labels of the data do not fit
        if variant.name == settings.reference:
            raise
        lost = f"if {settings.reference} is judged, its classes were lost in making {variant.name}"
        result = record_failure(variant.name, f"{error}; {lost}")
    records.write(METRICS / "evaluate" / f"{variant.name}.json", result)


def record_failure(name: str, reason: str) -> Failed:
    artifact.write_status(MODELS / "evaluate" / name, Manifest(kind="evaluation", status="failed", reason=reason))
    return Failed(reason)


if __name__ == "__main__":
    run_main(main)
