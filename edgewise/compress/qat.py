"""Training that goes on with 8 bits simulated (QAT): from one torch source to another whose weights have got used to it.

torchao's pt2e puts a rounding step with a straight-through gradient behind every weight and activation of the exported program
(Jacob et al. 2018), batch norms folded into the weights that are rounded. What comes out is a float source again, under the same
names: each format quantizes it with its own tool, so that its files and kernels are those of int8-static.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train, Tuning
from edgewise.errors import VariantFailed
from edgewise.sources import torch_source, training
from edgewise.sources.trained import change
from edgewise.sources.transformers_model import silence

REQUIRES = {"torch": "train", "torchao": "train", "safetensors": "train"}
PROGRAM, PROBE = "program.pt2", "probe.npz"
TORCHAO_EPSILON = 1e-5  # of a batch norm: torchao writes it into the folded ones, whatever theirs was
SMALLEST_STEP = 2**-12  # of the rounding
HUGE = 1e15  # a constant beyond it, of a mask, is left alone
ANNOTATION = "quantization_annotation"  # where torchao looks for it in a node's meta
LAYERS = {"aten.conv1d.default", "aten.conv2d.default", "aten.linear.default"}
TRANSPOSED = {"aten.conv_transpose1d.default", "aten.conv_transpose2d.input"}  # rounded where a batch norm or a ReLU follows
ELEMENTWISE = {"aten.add.Tensor", "aten.add_.Tensor", "aten.mul.Tensor", "aten.mul_.Tensor"}
NORMS, RELUS = {"aten.batch_norm.default"}, {"aten.relu.default", "aten.relu_.default"}
MOVING = {"aten.permute.default", "aten.squeeze.dim", "aten.view.default", "aten.flatten.using_ints", "aten.max_pool2d.default"}
AVERAGING = {"aten.adaptive_avg_pool2d.default", "aten.mean.default", "aten.mean.dim"}
SHARING = {"aten.relu.default", "aten.hardtanh.default", "aten.hardtanh_.default", *MOVING, *AVERAGING}
MOST_LOST = 0.5  # of what the net as trained, which rounds, gets right beyond chance; a third was seen where rounding was all it knew


def tune(source: Path, data: Path, wanted: Tuning, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    """Write the tuned source into `folder`; returns the history of the training. VariantFailed where the source is no torch program."""
    import torch

    manifest = artifact.read(source)
    if not (source / PROGRAM).exists():
        raise VariantFailed(f"not from a source of format {manifest.format}: int8-qat trains a torch program")
    samples, recipe = Samples.open(data), dataclasses.replace(train, epochs=wanted.epochs, learning_rate=wanted.learning_rate)
    with training.repeatable(seed, train.threads), warnings.catch_warnings(action="ignore"):
        torch.use_deterministic_algorithms(False)  # torchao's fused rounding step has no deterministic kernel; on a CPU it is one
        program = torch.export.load(source / PROGRAM)
        usual_epsilon(program)
        model = prepared(program, samples, wanted.per_channel)
        history = training.fit(model, samples, recipe, seed, change(train, artifact.read(data)))
        take_over(program, model)
        check_taken_over(program, samples, history, recipe)
        write(program, source, folder)
    artifact.write(folder, dataclasses.replace(manifest, details={**manifest.details, "qat": dataclasses.asdict(wanted)}))
    return history


def usual_epsilon(program: Any) -> None:
    """Give every batch norm torchao's epsilon, and what it had above that to its running variance: the same function, since only the
    sum of the two is used. A net with another epsilon would be trained as one function and written as another."""
    import torch

    buffers, done = program.graph_signature.inputs_to_buffers, set()
    for node in program.graph.nodes:
        if node.target is not torch.ops.aten.batch_norm.default:
            continue
        variance, epsilon = buffers[node.args[4].name], node.args[7]
        if variance not in done:
            program.state_dict[variance] += epsilon - TORCHAO_EPSILON
            done.add(variance)
        node.args = (*node.args[:7], TORCHAO_EPSILON, *node.args[8:])


def prepared(program: Any, samples: Samples, per_channel: bool) -> Any:
    """The program as a module with rounding steps, their ranges set by one batch; it can be trained and evaluated."""
    import torch

    silence()
    from torchao.quantization import pt2e
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    model = program.module(check_guards=False)
    pt2e.move_exported_model_to_train(model)  # batch norms are recognized only as they are in training
    model = pt2e.allow_exported_model_train_eval(prepare_qat_pt2e(model, quantizer(per_channel)))
    model.train()  # returns nothing here
    with torch.no_grad():
        model(*torch_source.tensors(samples.feeds(samples.indices("calibration")[: training.VALIDATION_BATCH])))
    return model


def quantizer(per_channel: bool) -> Any:
    """A torchao Quantizer: weights become int8 in -127..127 without a zero point, activations int8 with one; `annotate` says which."""
    import torch
    from torchao.quantization import pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationSpec, Quantizer

    ranges = pt2e.MovingAveragePerChannelMinMaxObserver if per_channel else pt2e.MovingAverageMinMaxObserver
    scheme = torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric
    rounding = pt2e.FusedMovingAvgObsFakeQuantize
    activation = QuantizationSpec(torch.int8, rounding.with_args(eps=SMALLEST_STEP), -128, 127, torch.per_tensor_affine)
    weight = QuantizationSpec(torch.int8, rounding.with_args(eps=SMALLEST_STEP, observer=ranges), -127, 127, scheme, ch_axis=0)

    class Int8Quantizer(Quantizer):  # type: ignore[misc]  # torchao has no types
        def annotate(self, model: Any) -> Any:
            annotate(model, activation, weight)
            return model

        def validate(self, model: Any) -> None:
            """Every annotation is one of `annotate`; nothing is left to check."""

    return Int8Quantizer()


def annotate(model: Any, activation: Any, weight: Any) -> None:
    """Say which values of an exported program are rounded. A convolution or linear layer, its batch norm and its ReLU are one step, as in
    the formats' kernels, and so are a sum or a product and its ReLU: only what goes in and what comes out is rounded. Operators that
    move, choose or average values share the rounding of their input. The rules are those of torchao's XNNPACKQuantizer, which is
    deprecated there and only for its tests (0.18); constants that are added or multiplied stay as they are."""
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec

    model.graph.eliminate_dead_code()  # unused results of a batch norm hide that its ReLU follows
    for node in [node for node in model.graph.nodes if node.op == "call_function"]:
        name, end = str(node.target), _end(node)
        if name in LAYERS or (name in TRANSPOSED and end is not node):
            _annotate(node, {node.args[0]: activation, node.args[1]: weight}, end, activation)
        elif name in ELEMENTWISE and all(_can_be_rounded(model, value) for value in node.args):
            _annotate(node, {value: activation for value in node.args if hasattr(value, "op")}, end, activation)
    for node in model.graph.nodes:
        before = node.args[0] if node.args else None
        if str(node.target) in SHARING and ANNOTATION not in node.meta and _is_rounded(before):
            _annotate(node, {before: SharedQuantizationSpec(before)}, node, SharedQuantizationSpec(before))


def _annotate(node: Any, inputs: Mapping[Any, Any], end: Any, output: Any) -> None:
    from torchao.quantization.pt2e.quantizer import annotate_input_qspec_map, annotate_output_qspec

    for value, spec in inputs.items():
        annotate_input_qspec_map(node, value, spec)
    annotate_output_qspec(end, output)


def _end(node: Any) -> Any:
    """The last node of the step that begins with this one."""
    for kinds in (NORMS if "conv" in str(node.target) else (), RELUS):
        if len(node.users) == 1 and str(next(iter(node.users)).target) in kinds:
            node = next(iter(node.users))
    return node


def _can_be_rounded(model: Any, value: Any) -> bool:
    """A float32 tensor, and no constant so large that one step of its range is more than all other values (as in masks)."""
    import torch

    if not hasattr(value, "op"):
        return abs(value) < HUGE
    if value.op == "get_attr" and attrgetter(value.target)(model).abs().max() >= HUGE:
        return False
    return getattr(value.meta.get("val"), "dtype", None) is torch.float32


def _is_rounded(value: Any) -> bool:
    return ANNOTATION in getattr(value, "meta", ()) and value.meta[ANNOTATION].output_qspec is not None


def take_over(program: Any, model: Any) -> None:
    """Copy weights and running figures of the trained module into the program, by their names."""
    import torch

    trained = model.state_dict()
    with torch.no_grad():
        for name, tensor in program.state_dict.items():
            if tensor.is_floating_point():  # and not the batch norms' counters of steps
                tensor.copy_(trained[name])


def check_taken_over(program: Any, samples: Samples, history: Mapping[str, Any], train: Train) -> None:
    """VariantFailed where the program, on validation, is far from as good as the net that was trained. Of classes only."""
    trained = history["accuracy_validation"]
    if trained is None:
        return
    written, chance = (
        training.validate(Fixed(program), samples, training.criterion(samples, train))["accuracy_validation"],
        1 / len(samples.labels),
    )
    if written - chance < (1 - MOST_LOST) * (trained - chance):
        raise VariantFailed(
            f"what was trained with 8 bits simulated ({trained:.0%} on validation) is another function as a float source ({written:.0%}):"
            " use int8-static or int8-mixed"
        )


class Fixed:
    """An exported program as `training.validate` calls a module; it has one mode."""

    def __init__(self, program: Any):
        self._module = program.module(check_guards=False)

    def eval(self) -> None:
        pass

    def __call__(self, *feeds: Any) -> Any:
        return self._module(*feeds)


def write(program: Any, source: Path, folder: Path) -> None:
    """The files of a torch source (see torch_source); the probe's samples are those of `source`, their outputs this program's."""
    import torch
    from safetensors.torch import save_file

    with np.load(source / PROBE) as stored:
        arrays = dict(stored)
    feeds = {name: array for name, array in arrays.items() if name.startswith("in:")}
    (output,) = set(arrays) - set(feeds)
    with torch.no_grad():
        arrays[output] = program.module(check_guards=False)(*torch_source.tensors(feeds)).numpy()
    torch.export.save(program, folder / PROGRAM)
    save_file({name: tensor.contiguous().clone() for name, tensor in program.state_dict.items()}, folder / torch_source.WEIGHTS)
    np.savez(folder / PROBE, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle
