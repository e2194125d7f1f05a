"""What formats that quantize with NNCF have in common: its arguments for our settings, and quiet."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgewise.formats.common.quiet import suppress_warnings

METHODS = {  # -> NNCF's names; it has no entropy method
    "minmax": "MINMAX",
    "mean": None,  # NNCF's default: the mean of each sample's extremes, and the extremes of all samples where a channel has its own range
    "percentile": "MEAN_QUANTILE",
}


@contextlib.contextmanager
def silence_nncf() -> Iterator[None]:
    """Run a block without NNCF's warnings, log and progress bars."""
    with suppress_warnings(), contextlib.redirect_stdout(io.StringIO()):
        yield


def make_arguments(settings: Mapping[str, Any], samples: int, ignored: Sequence[str], transformer: bool) -> tuple[Any, dict[str, Any]]:
    """NNCF's advanced parameters, and the other arguments of nncf.quantize. ignored: nodes that stay float."""
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

    name = METHODS[settings["calibration"]["method"]]
    presets = nncf.QuantizationPreset
    advanced = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=getattr(RangeEstimatorParametersSet, name) if name else RangeEstimatorParameters(),
        weights_quantization_params=QuantizationParameters(per_channel=settings["per_channel"]),
    )
    return advanced, {
        "subset_size": samples,
        "preset": presets.PERFORMANCE if settings["symmetric"] else presets.MIXED,
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        "ignored_scope": nncf.IgnoredScope(names=[*ignored]),
    }
