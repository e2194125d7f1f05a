"""scan-layers: how much each layer of the source suffers from int8, for variants that keep some layers in float.

    python -m stages.scan_layers

Reads   models/source, models/data (calibration split); scans of the configuration
Writes  models/sensitivity/SCHEME for every scheme: KEY.json for each scan that a variant needs; a manifest with status `skipped`
        and the reason where no variant needs one or the source cannot be scanned

KEY.json: {"layers": {source layer: {"sqnr_db", "noise", "float_bytes"}}, "sqnr_db": with all of them quantized}
"""

from edgewise.artifacts.artifact import Manifest
from edgewise.compress.sensitivity import SENSITIVITY, scan_scheme
from edgewise.config import schema
from edgewise.errors import run_main
from edgewise.proof.making import write_schemes

CODE = (
    "edgewise.compress.sensitivity",
    "{scanner}",
    "{samples}",
    "{proof}",
    "edgewise.formats.common.nncf_settings",
    "edgewise.formats.common.onnx_graphs",
    "edgewise.formats.common.programs",
    "edgewise.formats.common.rounding",
    "edgewise.onnx_reading",
)


def main() -> None:
    configuration = schema.read()
    if not any(configuration.scans.values()):
        print("scan-layers: nothing to do, no variant keeps layers in float by their sensitivity")
    blank = Manifest(kind="sensitivity")
    write_schemes(SENSITIVITY, configuration.scans, blank, lambda scheme, folder: scan_scheme(scheme, configuration, folder))


if __name__ == "__main__":
    run_main(main)
