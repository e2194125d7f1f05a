"""Which samples calibrate, and when a smaller split is worth a line."""

import numpy as np
import pytest

from edgewise.compress.variants import select_calibration
from edgewise.config.schema import Calibration, Variant


class Split:
    def indices(self, name: str) -> np.ndarray:
        assert name == "calibration"
        return np.arange(48)


@pytest.mark.parametrize(
    ("calibration", "said"), [(Calibration(), False), (Calibration(samples=64), True), (Calibration(samples=48), False)]
)
def test_a_small_split_is_told_to_whoever_asked_for_more(calibration, said, capsys):
    variant = Variant("v", "onnx", "int8-static", "edgewise.formats.onnx", calibration=calibration)
    assert select_calibration(variant, Split()).tolist() == list(range(48))
    assert ("but the split has 48" in capsys.readouterr().err) is said
