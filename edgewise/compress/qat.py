"""Quantization-aware training (QAT): fine-tune a torch source with fake quantization.

torchao's pt2e inserts fake quantization with a straight-through gradient behind every weight and activation of the exported program
(Jacob et al. 2018); batch norms are folded into the weights before these are rounded. The result is a float source again, with the same
names: each format quantizes it with its own tool, so that its files and kernels are those of int8-static.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train, Tuning
from edgewise.errors import VariantFailed
from edgewise.sources import torch_source, training
from edgewise.sources.objectives import Objective, choose
from edgewise.sources.transformers_model import silence_torchao

Teach = Callable[[Objective, Samples], Objective]
REQUIRES = {"torch": "train", "torchao": "train", "safetensors": "train"}
PROGRAM, PROBE = "program.pt2", "probe.npz"
TORCHAO_EPSILON = 1e-5  # torchao gives folded batch norms this epsilon, whatever theirs was
MIN_SCALE = 2**-12  # of fake quantization
MASK_VALUE = 1e15  # constants this large are masks and stay float
ANNOTATION = "quantization_annotation"  # where torchao looks for it in a node's meta
LAYERS = {"aten.conv1d.default", "aten.conv2d.default", "aten.linear.default"}
TRANSPOSED = {"aten.conv_transpose1d.default", "aten.conv_transpose2d.input"}  # quantized where a batch norm or a ReLU follows
ELEMENTWISE = {"aten.add.Tensor", "aten.add_.Tensor", "aten.mul.Tensor", "aten.mul_.Tensor"}
NORMS, RELUS = {"aten.batch_norm.default"}, {"aten.relu.default", "aten.relu_.default"}
MOVING = {"aten.permute.default", "aten.squeeze.dim", "aten.view.default", "aten.flatten.using_ints", "aten.max_pool2d.default"}
AVERAGING = {"aten.adaptive_avg_pool2d.default", "aten.mean.default", "aten.mean.dim"}
SHARING = {"aten.relu.default", "aten.hardtanh.default", "aten.hardtanh_.default", *MOVING, *AVERAGING}
MAX_LOST_SHARE = 0.5  # of the score above chance that the model has with fake quantization; a third was seen to be lost without it
LEAST_LOSS = 0.05  # of a score; a model that has learned little loses less than that by chance


def fine_tune(
    source: Path, data: Path, tuning: Tuning, train: Train, seed: int, folder: Path, teach: Teach | None = None
) -> Mapping[str, Any]:
    """Write the fine-tuned source into `folder` and return the training history. VariantFailed where the source is not a torch program.
    teach: puts a teacher beside the objective, see sources.distillation."""
    import torch

    manifest = artifact.read(source)
    if not (source / PROGRAM).exists():
        raise VariantFailed(f"not from a source of format {manifest.format}: int8-qat can fine-tune torch sources only")
    samples, recipe = Samples.open(data), dataclasses.replace(train, epochs=tuning.epochs, learning_rate=tuning.learning_rate, ema=0.0)
    objective = choose(samples, recipe, manifest.details.get(torch_source.DECODING))
    if objective is None:
        raise VariantFailed(f"int8-qat cannot train this model with data.targets={samples.kind}: there is no loss for it")
    objective = teach(objective, samples) if teach else objective
    with training.repeatable(seed, train.threads), warnings.catch_warnings(action="ignore"):
        torch.use_deterministic_algorithms(False)  # torchao's fused fake quantization is not declared so; on a CPU it is
        program = torch.export.load(source / PROGRAM)
        set_batch_norm_epsilon(program)
        model = prepare(program, samples, objective, tuning.per_channel)
        history = training.fit(model, samples, recipe, seed, objective)
        copy_weights(model, program)
        check_score_kept(program, samples, history, objective)
        write_source(program, source, folder)
    artifact.write(folder, dataclasses.replace(manifest, details={**manifest.details, "qat": dataclasses.asdict(tuning)}))
    return history


def set_batch_norm_epsilon(program: Any) -> None:
    """Give every batch norm torchao's epsilon and add the difference to its running variance: the same function, since only the sum of
    the two is used. Otherwise a model with another epsilon would be trained as one function and written as another."""
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


def prepare(program: Any, samples: Samples, objective: Objective, per_channel: bool) -> Any:
    """The program as a trainable module with fake quantization, its ranges initialized by one batch."""
    import torch

    silence_torchao()
    from torchao.quantization import pt2e
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    model = program.module(check_guards=False)
    pt2e.move_exported_model_to_train(model)  # batch norms are recognized only as they are in training
    model = pt2e.allow_exported_model_train_eval(prepare_qat_pt2e(model, make_quantizer(per_channel)))
    model.train()  # returns None here
    with torch.no_grad():
        model(*training.to_tensors(samples.feeds(samples.indices("calibration")[: objective.validation_batch])))
    return model


def make_quantizer(per_channel: bool) -> Any:
    """A torchao Quantizer for what `annotate` selects: weights int8, -127..127, symmetric; activations int8 with a zero point."""
    import torch
    from torchao.quantization import pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationSpec, Quantizer

    ranges = pt2e.MovingAveragePerChannelMinMaxObserver if per_channel else pt2e.MovingAverageMinMaxObserver
    scheme = torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric
    fake_quantize = pt2e.FusedMovingAvgObsFakeQuantize
    activation = QuantizationSpec(torch.int8, fake_quantize.with_args(eps=MIN_SCALE), -128, 127, torch.per_tensor_affine)
    weight = QuantizationSpec(torch.int8, fake_quantize.with_args(eps=MIN_SCALE, observer=ranges), -127, 127, scheme, ch_axis=0)

    class Int8Quantizer(Quantizer):  # type: ignore[misc]  # torchao has no types
        def annotate(self, model: Any) -> Any:
            annotate(model, activation, weight)
            return model

        def validate(self, model: Any) -> None:
            """Required by the base class; `annotate` makes valid annotations only."""

    return Int8Quantizer()


def annotate(model: Any, activation: Any, weight: Any) -> None:
    """Mark which values of an exported program are quantized.

    A convolution or linear layer is fused with its batch norm and ReLU, as in the formats' kernels, and a sum or product with its ReLU:
    only their inputs and outputs are quantized. Operators that move, select or average values share the parameters of their input.
    Constants that are added or multiplied stay float. The rules are those of torchao's XNNPACKQuantizer, which torchao 0.18 keeps for
    its own tests only.
    """
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec

    model.graph.eliminate_dead_code()  # unused outputs of a batch norm hide the ReLU behind it
    for node in [node for node in model.graph.nodes if node.op == "call_function"]:
        name, last = str(node.target), _last_fused(node)
        if name in LAYERS or (name in TRANSPOSED and last is not node):
            _annotate(node, {node.args[0]: activation, node.args[1]: weight}, last, activation)
        elif name in ELEMENTWISE and all(_is_quantizable(model, value) for value in node.args):
            _annotate(node, {value: activation for value in node.args if hasattr(value, "op")}, last, activation)
    for node in model.graph.nodes:
        value = node.args[0] if node.args else None
        if str(node.target) in SHARING and ANNOTATION not in node.meta and _has_quantized_output(value):
            _annotate(node, {value: SharedQuantizationSpec(value)}, node, SharedQuantizationSpec(value))


def _annotate(node: Any, inputs: Mapping[Any, Any], last: Any, output: Any) -> None:
    from torchao.quantization.pt2e.quantizer import annotate_input_qspec_map, annotate_output_qspec

    for value, spec in inputs.items():
        annotate_input_qspec_map(node, value, spec)
    annotate_output_qspec(last, output)


def _last_fused(node: Any) -> Any:
    """The last node of the fused operation that begins with `node`."""
    for kinds in (NORMS if "conv" in str(node.target) else (), RELUS):
        if len(node.users) == 1 and str(next(iter(node.users)).target) in kinds:
            node = next(iter(node.users))
    return node


def _is_quantizable(model: Any, value: Any) -> bool:
    """Whether it is a float32 tensor, and not a mask: one step of a mask's range would be larger than all other values."""
    import torch

    if not hasattr(value, "op"):
        return bool(abs(value) < MASK_VALUE)
    if value.op == "get_attr" and attrgetter(value.target)(model).abs().max() >= MASK_VALUE:
        return False
    return getattr(value.meta.get("val"), "dtype", None) is torch.float32


def _has_quantized_output(value: Any) -> bool:
    return ANNOTATION in getattr(value, "meta", ()) and value.meta[ANNOTATION].output_qspec is not None


def copy_weights(model: Any, program: Any) -> None:
    """Copy weights and running statistics of the trained module into the program, by name."""
    import torch

    trained = model.state_dict()
    with torch.no_grad():
        for name, tensor in program.state_dict.items():
            if tensor.is_floating_point() and name in trained:  # no step counters of batch norms, no layers that are never called
                tensor.copy_(trained[name])


def check_score_kept(program: Any, samples: Samples, history: Mapping[str, Any], objective: Objective) -> None:
    """VariantFailed where the float program is far worse on validation than it was with fake quantization; not for numbers."""
    if objective.score is None:
        return
    trained, chance = history[objective.score], objective.chance
    exported = training.validate(ExportedModule(program), samples, objective)[objective.score]
    if trained - exported > max(LEAST_LOSS, MAX_LOST_SHARE * (trained - chance)):
        raise VariantFailed(
            f"the fine-tuned model reaches {trained:.0%} on validation with fake quantization, but {exported:.0%} without it, as a float"
            " source: use int8-static or int8-mixed"
        )


class ExportedModule:
    """An exported program with the part of torch.nn.Module's interface that `training.validate` uses."""

    def __init__(self, program: Any):
        self._module = program.module(check_guards=False)

    def eval(self) -> None:
        pass

    def __call__(self, *feeds: Any) -> Any:
        return self._module(*feeds)


def write_source(program: Any, source: Path, folder: Path) -> None:
    """Write the files of a torch source (see torch_source); the probe has the samples of `source` and this program's outputs."""
    import torch
    from safetensors.torch import save_file

    with np.load(source / PROBE) as stored:
        arrays = dict(stored)
    feeds = {name: array for name, array in arrays.items() if name.startswith("in:")}
    with torch.no_grad():
        results = training.run(program.module(check_guards=False), feeds)
    names = [name for name in arrays if name not in feeds]  # in the order of the program's outputs
    arrays |= {name: result.numpy() for name, result in zip(names, results, strict=True)}
    torch.export.save(program, folder / PROGRAM)
    save_file({name: tensor.contiguous().clone() for name, tensor in program.state_dict.items()}, folder / torch_source.WEIGHTS)
    np.savez(folder / PROBE, **arrays)
