"""Training that goes on with 8 bits simulated (QAT): from one torch source to another whose weights have got used to it.

torchao's pt2e puts a rounding step with a straight-through gradient behind every weight and activation of the exported program
(Jacob et al. 2018), batch norms folded into the weights that are rounded. What comes out is a float source again, under the same
names: each format quantizes it with its own tool, so that its files and kernels are those of int8-static.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import artifact
from stages.core.config import Train
from stages.core.errors import VariantFailed
from stages.core.samples import Samples
from stages.core.variant import Tuning
from stages.importers import torch_source, training
from stages.importers.trained import change
from stages.importers.transformers_model import silence

REQUIRES = {"torch": "train", "torchao": "train", "safetensors": "train"}
PROGRAM, PROBE = "program.pt2", "probe.npz"
TORCHAO_EPSILON = 1e-5  # of a batch norm: torchao writes it into the folded ones, whatever theirs was
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
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

    model = program.module(check_guards=False)
    pt2e.move_exported_model_to_train(model)  # batch norms are recognized only as they are in training
    rounding = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=per_channel, is_qat=True))
    model = pt2e.allow_exported_model_train_eval(prepare_qat_pt2e(model, rounding))
    model.train()  # returns nothing here
    with torch.no_grad():
        model(*torch_source.tensors(samples.feeds(samples.indices("calibration")[: training.VALIDATION_BATCH])))
    return model


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
