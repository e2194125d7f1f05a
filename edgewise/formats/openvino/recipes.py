"""The schemes of the OpenVINO format as functions: (float model, settings, calibration feeds, nodes to keep float) -> model."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.nncf_settings import make_arguments, silence_nncf
from edgewise.formats.openvino.facts import MODEL, iterate_bodies, list_operators, weights

Arrays = dict[str, np.ndarray]
Recipe = Callable[[Any, Mapping[str, Any], Sequence[Arrays], list[str]], Any]

MIN_BLOCK_SIZE = 4
EMPTY = "Calibration dataset must not be empty"  # of NNCF, which collects for each body of an If by itself what reaches it
FLOAT16_MAX = 65504.0
NUMBERED = re.compile("[A-Z][A-Za-z0-9]*_[0-9]+")  # default names of OpenVINO: the operator and a running number


def fp32(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    return model


def fp16(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """Weights stored in half precision. OpenVINO's own compression cannot exclude nodes."""
    for body in iterate_bodies(model):
        done: dict[str, Any] = {}  # a body reads no constants of another one
        for node in body.get_ordered_ops():
            if node.get_friendly_name() not in kept:
                _halve_weights(node, done)
    return model


def _halve_weights(node: Any, done: dict[str, Any]) -> None:
    """Store the weights of a node as float16. done: name -> converted weights, which other nodes may share."""
    from openvino import opset13

    names = [weight.name for weight in weights(node)]
    for port in node.inputs():
        origin = port.get_source_output().get_node()
        name = origin.get_friendly_name()
        if name not in names:
            continue
        if name not in done:
            half = opset13.constant(np.clip(origin.get_data(), -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16), name=name)
            done[name] = opset13.convert(half, "f32", name=f"{name}/Convert")
        port.replace_source_output(done[name].output(0))


def int8_static(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """NNCF's post-training quantization, with fast bias correction.

    symmetric: of activations too. For transformers NNCF's own scheme is used, which keeps the residual stream in float and smooths outliers
    (ViT: SQNR 22 dB with it, 5 dB without).
    """
    with silence_nncf():
        import nncf

        advanced, options = _nncf_parameters(model, settings, len(calibration), kept)
        try:
            return nncf.quantize(model, nncf.Dataset(calibration), advanced_parameters=advanced, **options)
        except nncf.ValidationError as error:
            if EMPTY not in str(error):
                raise
            raise ValueError(
                "no calibration sample takes one of the branches of an If, so that the ranges in it are not known; give samples that take"
                " it, fix the condition (model.inputs), or use fp16"
            ) from error


def int8_accuracy_control(
    model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str], validation: tuple[Sequence[Arrays], np.ndarray]
) -> Any:
    """int8_static, then NNCF reverts layers to float, the most harmful first, until the loss of accuracy on `validation` is at most
    accuracy_control.drop_points. Each layer that is tried costs one evaluation of all samples."""
    with silence_nncf():
        import nncf

        advanced, options = _nncf_parameters(model, settings, len(calibration), kept)
        pairs = list(zip(*validation, strict=True))
        return nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(calibration),
            nncf.Dataset(pairs, lambda pair: pair[0]),
            _hits,
            max_drop=settings["accuracy_control"]["drop_points"] / 100,
            advanced_quantization_parameters=advanced,
            **options,
        )


def _hits(compiled: Any, pairs: Iterable[tuple[Arrays, int]]) -> tuple[float, list[float]]:
    """Accuracy, and for each sample whether the prediction is correct."""
    hits = [float(compiled(feeds)[0].argmax() == target) for feeds, target in pairs]
    return sum(hits) / len(hits), hits


def _nncf_parameters(model: Any, settings: Mapping[str, Any], samples: int, kept: list[str]) -> tuple[Any, dict[str, Any]]:
    """NNCF's advanced parameters, and the others."""
    ignored = [*kept, *_find_between(model, kept), *_find_recurrent(model, kept)]
    return make_arguments(settings, samples, ignored, _is_transformer(model))


def _find_recurrent(model: Any, kept: Sequence[str]) -> list[str]:
    """Recurrent layers that are left float: GRUs, whose weights OpenVINO 2026.4 takes only as plain constants, and LSTMs whose state comes
    from outside: rounded to 8 bits in every step, it is soon worthless (a detector of speech then gives the same for any sound)."""
    found = []
    for node in list_operators(model):
        name, kind = node.get_friendly_name(), node.get_type_name()
        given = kind == "LSTMSequence" and any(_comes_from_outside(value.get_node()) for value in node.input_values()[1:3])
        if (kind == "GRUSequence" or given) and name not in kept:
            found.append(name)
    return found


def _find_between(model: Any, kept: Sequence[str]) -> list[str]:
    """Nodes without weights whose results only kept nodes use: quantizing them would undo the benefit of the kept layers."""
    found = set(kept)
    for node in reversed(model.get_ordered_ops()):
        users = {port.get_node().get_friendly_name() for output in node.outputs() for port in output.get_target_inputs()}
        if node.get_type_name() not in ("Parameter", "Constant") and not weights(node) and users and found.issuperset(users):
            found.add(node.get_friendly_name())
    return sorted(found - set(kept))


def _comes_from_outside(node: Any) -> bool:
    """Whether a value is that of an input of the model; zeros that are spread over the batch are none."""
    while node.get_input_size():
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() != "Constant")


def int4_weight(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """Blocks of 4-bit weights in matrix products only: for convolutions NNCF would silently store int8.

    A layer that cannot be divided into blocks of this size gets the next smaller size.
    """
    with silence_nncf():
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode

        modes = nncf.CompressWeightsMode
        others = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() != "MatMul" and weights(node)]
        return nncf.compress_weights(
            model,
            mode=modes.INT4_SYM if settings["symmetric"] else modes.INT4_ASYM,
            group_size=settings["block_size"],
            all_layers=True,
            ignored_scope=nncf.IgnoredScope(names=[*others, *kept]),
            advanced_parameters=AdvancedCompressionParameters(
                group_size_fallback_mode=GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=MIN_BLOCK_SIZE
            ),
        )


RECIPES: dict[str, Recipe] = {
    "fp32": fp32,
    "fp16": fp16,
    "int8-static": int8_static,
    "int8-mixed": int8_static,
    "int8-qat": int8_static,
    "int4-weight": int4_weight,
}


def save(model: Any, folder: Path, known: Iterable[str]) -> None:
    """Write model.xml and model.bin with the model's own types (by default OpenVINO would store float16).

    known: names that nodes keep. Other default names hold a counter of the process; they get the position of the node instead.
    """
    import openvino

    taken = set(known)
    for place, node in enumerate(list_operators(model)):
        name, kind = node.get_friendly_name(), node.get_type_name()
        if name not in taken and NUMBERED.fullmatch(name):
            node.set_friendly_name(next(new for n in count(place) if (new := f"{kind}@{n}") not in taken))
        taken.add(node.get_friendly_name())
    openvino.save_model(model, folder / MODEL, compress_to_fp16=False)


def _is_transformer(model: Any) -> bool:
    """Whether the graph has layer norms or attention (a Softmax that is not its output)."""
    ends = {value.get_node().get_friendly_name() for result in model.get_results() for value in result.input_values()}
    kinds = {node.get_type_name() for node in model.get_ops() if node.get_friendly_name() not in ends}
    return bool(kinds & {"MVN", "Softmax", "ScaledDotProductAttention"})
