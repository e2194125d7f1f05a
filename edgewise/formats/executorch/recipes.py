"""The schemes of the ExecuTorch format: what XNNPACK's quantizer is asked for, with torchao's PT2E flow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgewise.formats.common.quiet import suppress_warnings
from edgewise.formats.executorch.lowering import Prepared, packet_name, read_mark

Arrays = Mapping[str, np.ndarray]
METHODS = {  # -> torchao's observers
    "minmax": "MinMaxObserver",
    "moving_average": "MovingAverageMinMaxObserver",  # of each sample's extremes, the last ones weigh most
    "histogram": "HistogramObserver",  # XNNPACK's own choice: the range with the least squared error
}
SMALLEST_SCALE = 2**-12  # of activations, as XNNPACK's quantizer has it
INT4 = {"weight_qmin": -8, "weight_qmax": 7}
ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "pow")
POOLING = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean")
PICTURE_OPERATORS = (
    "conv2d",
    "conv_transpose2d",
    "upsample_bilinear2d",
    "cat",
    *POOLING,
)  # the lowering turns their inputs to channels last
PATTERNS = {"int4-weight": ("linear",)}  # of XNNPACK's quantizer; all of them for other schemes


def quantize(prepared: Prepared, scheme: str, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: Sequence[str]) -> Any:
    """The graph of a scheme, a GraphModule that `lowering.lower` takes."""
    if scheme == "fp32":
        return prepared.module
    with suppress_warnings():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        if scheme == "int4-weight":
            _check_even(prepared.module, kept)
        floats = find_float(prepared.module.graph, kept) | (find_undelegated(prepared.module.graph) if scheme == "int8-dynamic" else set())
        observed = prepare_pt2e(prepared.module, make_quantizer(CONFIGS[scheme](settings), scheme, floats))
        observe(observed, prepared, calibration)
        return convert_pt2e(observed)


def _check_even(module: Any, kept: Sequence[str]) -> None:
    """ValueError for a matrix whose rows cannot be packed two weights to a byte, as XNNPACK has them."""
    import torch

    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        inputs, name = node.args[1].meta["val"].shape[1], read_mark(node)
        if inputs % 2 and name not in kept:
            raise ValueError(
                f"{name or node.name} has {inputs} inputs, and XNNPACK takes 4-bit weights of an even number only; keep_float: [{name}]"
            )


def observe(module: Any, prepared: Prepared, calibration: Sequence[Arrays]) -> None:
    """Run the calibration feeds; without any the example, for the scales of weights are found in a run too."""
    import torch

    names = [entry["name"] for entry in prepared.manifest["inputs"]]
    kinds = [example.dtype for example in prepared.examples]
    with torch.no_grad():
        for feed in calibration:
            module(*(torch.from_numpy(np.array(feed[name])).to(kind) for name, kind in zip(names, kinds, strict=True)))
        if not calibration:
            module(*prepared.examples)


def make_quantizer(config: Any, scheme: str, floats: set[str]) -> Any:
    """XNNPACK's quantizer. floats: names of nodes that stay float."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer

    class Quantizer(XNNPACKQuantizer):  # type: ignore[misc]  # executorch is Any to mypy, see pyproject.toml
        # the patterns of fine-tuning are traced with TorchDynamo, a second for each graph, and find nothing: batch norms are folded by now
        SUPPORTED_PATTERNS = tuple(
            pattern
            for pattern in XNNPACKQuantizer.SUPPORTED_PATTERNS
            if not pattern.is_qat and pattern.name in PATTERNS.get(scheme, (pattern.name,))
        )

        def annotate(self, model: Any) -> Any:
            if scheme != "int4-weight":
                annotate_activated_convolutions(model.graph, config, floats)
            return super().annotate(model)

    return Quantizer().set_filter_function(lambda node: node.name not in floats).set_global(config)


def annotate_activated_convolutions(graph: Any, config: Any, floats: set[str]) -> None:
    """Mark convolutions with an activation behind them that XNNPACK runs as one operator, but that its quantizer leaves out (1.5): with
    dynamic inputs those in front of a ReLU, with static ones those in front of a ReLU6."""
    import torch
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer_utils as utils
    from executorch.backends.xnnpack.utils.utils import is_depthwise_conv
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    aten, dynamic = torch.ops.aten, config.input_activation.is_dynamic
    kinds = (aten.relu.default, aten.relu_.default) if dynamic else (aten.hardtanh.default, aten.hardtanh_.default, aten.relu6.default)
    for activation in [node for node in graph.nodes if node.target in kinds]:
        node = activation.args[0]
        if not utils._is_conv_node(node) or len(node.users) > 1 or {node.name, activation.name} & floats:
            continue
        shape = node.args[1].meta["val"].shape
        if len(shape) != 4 or (dynamic and is_depthwise_conv(shape)):
            continue
        data, weight = node.args[:2]
        specs = {data: utils.get_input_act_qspec(config), weight: utils.get_weight_qspec(config)}
        node.meta[utils.Q_ANNOTATION_KEY] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
        if not dynamic:
            output = utils.get_output_act_qspec(config)
            activation.meta[utils.Q_ANNOTATION_KEY] = QuantizationAnnotation(output_qspec=output, _annotated=True)


def find_float(graph: Any, kept: Sequence[str]) -> set[str]:
    """Names of the graph's nodes that stay float: the kept ones, and those without weights whose results only such nodes use. A batch norm
    or a ReLU is computed by the operator before it, and stays float with that one."""
    found = {node.name for node in graph.nodes if read_mark(node) in kept}
    for node in reversed(graph.nodes) if kept else ():
        users = {user.name for user in node.users}
        if node.op == "call_function" and read_mark(find_owner(node)) is None and users and users <= found:
            found.add(node.name)
    return found | {node.name for node in graph.nodes if find_owner(node).name in found}


def find_undelegated(graph: Any) -> set[str]:
    """Names of the convolutions that XNNPACK does not run with dynamic inputs (ExecuTorch 1.5), though its quantizer would mark them:
    transposed ones of one input channel, which it takes for depthwise, and those of `is_misplaced`."""
    import torch

    aten = torch.ops.aten
    transposed = graph.find_nodes(op="call_function", target=aten.conv_transpose2d.input)
    convolutions = graph.find_nodes(op="call_function", target=aten.conv2d.default)
    flat = {node.name for node in transposed if node.args[1].meta["val"].shape[0] == 1}
    return flat | {node.name for node in (*transposed, *convolutions) if is_misplaced(node.args[0])}


def is_misplaced(node: Any) -> bool:
    """Whether a value that is to be rounded as the model runs comes from an input of the model, by way of operators that do not turn it to
    channels last themselves, or from a slice or a sum or product with a number. The lowering then puts the change to channels last in
    front of all of them and leaves their axes as they were: the program fails with `Propagating input shapes failed`."""
    packet = packet_name(node).rstrip("_")
    if node.op != "call_function" or packet in PICTURE_OPERATORS:
        return False
    if packet == "slice" or (packet in ARITHMETIC and any(isinstance(each, int | float) for each in node.args[:2])):
        return True
    return any(each.op == "placeholder" or is_misplaced(each) for each in node.all_input_nodes)


def find_owner(node: Any) -> Any:
    """The operator that computes a batch norm or a ReLU behind it; any other node itself."""
    import torch

    while node.target in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default, torch.ops.aten.batch_norm.default):
        node = node.args[0]
    return node


def static_config(settings: Mapping[str, Any]) -> Any:
    """int8 weights and activations, with the observers of calibration.method."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
    from torchao.quantization.pt2e import observer

    config = get_symmetric_quantization_config(is_per_channel=settings["per_channel"])
    observing = getattr(observer, METHODS[settings["calibration"]["method"]]).with_args(eps=SMALLEST_SCALE)
    activations = replace(config.input_activation, observer_or_fake_quant_ctr=observing)
    return replace(config, input_activation=activations, output_activation=activations)


def dynamic_config(settings: Mapping[str, Any]) -> Any:
    """int8 weights with a scale for each output channel, which XNNPACK insists on; the range of each input is found as the model runs."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config

    return get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)


def int4_config(settings: Mapping[str, Any]) -> Any:
    """int4 weights with a scale for each output channel; inputs in int8, with ranges that are found as the model runs."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config

    return get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True, **INT4)


CONFIGS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "int8-static": static_config,
    "int8-mixed": static_config,  # with the layers in float that the search found
    "int8-qat": static_config,  # of a model fine-tuned for it
    "int8-dynamic": dynamic_config,
    "int4-weight": int4_config,
}
