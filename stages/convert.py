"""convert-FORMAT: the source as a float model of one format, once for all its variants.

    python -m stages.convert FORMAT

Reads   models/source, or the format between source and this one (openvino reads models/onnx); formats.FORMAT of the configuration
Writes  models/FORMAT: the float model, layers.json (source layer -> nodes), manifest; status `skipped` where no variant needs it

A source that the format cannot read is recorded with the reason, which the variants of the format then repeat.
"""

import sys

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.compress.float_models import MODELS, convert
from edgewise.config import schema
from edgewise.config.settings import nearest
from edgewise.errors import VariantFailed, run_main
from edgewise.proof.isolation import fail_alone

FOREACH = "formats"
CODE = (
    "edgewise.compress.float_models",
    "{format}.make",
    "{format}.run",
    "{proof}",
    "edgewise.formats.common",
    "edgewise.onnx_reading",
    "edgewise.artifacts.artifact",
)


def main() -> None:
    configuration = schema.read()
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in configuration.formats:
        sys.exit(f"usage: python -m stages.convert FORMAT; {nearest(name, configuration.formats)}")
    form, source = configuration.formats[name], artifact.read(MODELS / "source")
    skipped = None if form.used else f"no variant uses {name}"
    if skipped:
        artifact.write_status(MODELS / name, Manifest(kind="format", format=name, status="skipped", reason=skipped))
        print(f"convert-{name}: nothing to do, {skipped}")
        return
    try:
        with fail_alone(f"converting to {name}"):
            convert(name, form, artifact.require_ok(source, "models/source"))
    except VariantFailed as failure:
        artifact.write_status(MODELS / name, Manifest(kind="format", format=name, status="skipped", reason=str(failure)))
        print(f"convert-{name}: skipped: {failure}", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
