"""quantize@V: make one variant and prove that it is what its name says.

    python -m stages.quantize VARIANT

Reads   models/FORMAT (float model, layers.json), models/source (oracle), models/data (calibration split), models/sensitivity/SCHEME,
        models/qat/SCHEME or the source that models/pruned/V names; variants.V
Writes  models/variants/V: the model and its manifest, which says what the file really holds; status `failed` with the
        reason where it cannot be made
"""

import dataclasses
import sys

from edgewise.artifacts import artifact
from edgewise.compress.variants import MODELS, blank_manifest, make_variant
from edgewise.config import schema
from edgewise.errors import VariantFailed, run_main
from edgewise.proof.isolation import fail_alone

FOREACH = "variants"
CODE = (
    "edgewise.compress.variants",
    "{format}.make",
    "{format}.facts",
    "{format}.split",
    "{format}.store",
    "{format}.run",
    "{between}.make",
    "{samples}",
    "{proof}",
    "edgewise.formats.common",
    "edgewise.onnx_reading",
)


def main() -> None:
    configuration = schema.read()
    variant = configuration.variant(sys.argv[1] if len(sys.argv) == 2 else "")
    try:
        parent = artifact.require_ok(artifact.read(MODELS / variant.format), f"models/{variant.format}")
        with fail_alone(f"making {variant.name}"):
            make_variant(variant, parent, configuration)
    except VariantFailed as failure:
        failed = dataclasses.replace(blank_manifest(variant), status="failed", reason=str(failure))
        artifact.write_status(MODELS / "variants" / variant.name, failed)
        print(f"{variant.name}: failed: {failure}", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
