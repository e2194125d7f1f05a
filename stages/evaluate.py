"""evaluate@V: the variant on the whole test split, through its format's own session, judged as the task says.

    python -m stages.evaluate VARIANT

Reads   models/variants/V, models/data (test split; validation for a threshold)
Writes  metrics/evaluate/V.json (a few scalars), models/evaluate/V (outputs per sample, details such as the confusion; its manifest
        says how an answer is made of outputs, with a threshold that was chosen on validation where the task has one)
"""

import sys

from stages.core import artifact, config, results
from stages.core.artifact import Manifest
from stages.core.errors import VariantFailed, run_main
from stages.core.results import Evaluation, Failed
from stages.tasks.evaluating import METRICS, MODELS, evaluate


def main() -> None:
    settings = config.read()
    variant = settings.variant(sys.argv[1] if len(sys.argv) == 2 else "")
    result: Evaluation | Failed
    try:
        made = artifact.require_ok(artifact.read(MODELS / "variants" / variant.name), variant.name)
        result = evaluate(variant, made, settings.task)
    except VariantFailed as failure:
        result = Failed(str(failure))
        artifact.record(MODELS / "evaluate" / variant.name, Manifest(kind="evaluation", status="failed", reason=result.reason))
    results.write(METRICS / "evaluate" / f"{variant.name}.json", result)


if __name__ == "__main__":
    run_main(main)
