"""Files as users have them, for the examples of docs/model-files.md: a small trained digit classifier in four formats, and data.

    python -m benchmarks.example_files FOLDER [torch onnx tflite keras]

pictures/DIGIT/*.png  600 scans of digits, 16x16, grey         digits.pt2 .onnx .tflite .keras, saved/   reads them, from 0..1
waves.npz             x float32 [600, 1, 32], y                sentences.tsv                              600 lines of text, tab, label
walks.npz             x float32 [80, 12, 8]: 80 sequences of 12 steps     follower.onnx                   follows them, step by step
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SIDE, COUNT = 16, 600
WORDS = {"0": "dull slow empty cold", "1": "bright warm lively kind"}
FILLING = "the film was a story of two friends in one town and their long way home"


def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 16, 16] and int64 [n]"""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = np.rint(bunch.images[:COUNT] * 255 / 16).astype(np.uint8)
    return small.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2), bunch.target[:COUNT]


def write_pictures(folder: Path) -> None:
    from PIL import Image

    for number, (image, digit) in enumerate(zip(*digits(), strict=True)):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(digit) / f"{number:04d}.png")


def write_waves(path: Path) -> None:
    """Windows of a sensor: slow or quick waves, with noise."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, COUNT)
    phase, time = rng.uniform(0, 6, (COUNT, 1)), np.linspace(0, 6, 32)
    waves = np.sin(time[None] * (1 + 2 * kinds[:, None]) + phase) + rng.normal(0, 0.2, (COUNT, 32))
    np.savez(path, x=waves[:, None].astype(np.float32), y=kinds)


def write_sentences(path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for number in range(COUNT):
        label = str(number % 2)
        words = [*rng.choice(FILLING.split(), 8), str(rng.choice(WORDS[label].split()))]
        lines.append(f"{' '.join(rng.permutation(words))}\t{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_walks(path: Path) -> None:
    """Random walks, as a sensor drifts: sequences of steps without labels."""
    steps = np.random.default_rng(0).normal(0, 0.5, (80, 12, 8))
    np.savez(path, x=steps.cumsum(axis=1).astype(np.float32))


def write_follower(path: Path) -> None:
    """A GRU that is called once for each step: x [n, 8], state h [1, n, 16] and the scalar `gain` give y [n, 1] and the next state hn."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    held = {"w": (1, 48, 8), "r": (1, 48, 16), "out": (16, 1)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name) for name, shape in held.items()]
    axes = numpy_helper.from_array(np.array([0]), "axes")
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "axes"], ["sequence"]),
        helper.make_node("GRU", ["sequence", "w", "r", "", "", "h"], ["", "hn"], hidden_size=16),
        helper.make_node("Squeeze", ["hn", "axes"], ["features"]),
        helper.make_node("MatMul", ["features", "out"], ["y"]),
    ]
    shapes = {"x": ["n", 8], "h": [1, "n", 16], "gain": [], "y": ["n", 1], "hn": [1, "n", 16]}
    port = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(nodes, "follower", [port["x"], port["h"], port["gain"]], [port["y"], port["hn"]], [*weights, axes])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def wave_net(num_labels: int = 2) -> Any:
    """The user's own model, found by its dotted path."""
    from torch import nn

    return nn.Sequential(nn.Conv1d(1, 8, 5), nn.ReLU(), nn.Conv1d(8, 8, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(96, num_labels))


def reader() -> Any:
    """A trained digit reader: float32 [n, 1, 16, 16] from 0 to 1, to 10 logits."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    images, targets = digits()
    inputs, wanted = torch.from_numpy(images[:, None] / np.float32(255)), torch.from_numpy(targets)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), wanted).backward()
        optimizer.step()
    return net.eval()


def write_torch(net: Any, folder: Path) -> None:
    import torch

    batch = {0: torch.export.Dim("batch", min=1, max=1024)}
    torch.export.save(torch.export.export(net, (torch.zeros(2, 1, SIDE, SIDE),), dynamic_shapes=(batch,)), folder / "digits.pt2")


def write_onnx(net: Any, folder: Path) -> None:
    import torch

    batch = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    torch.onnx.export(net, (torch.zeros(2, 1, SIDE, SIDE),), dynamo=True, verbose=False, dynamic_shapes=batch).save(folder / "digits.onnx")


def write_tflite(net: Any, folder: Path) -> None:
    import litert_torch
    import torch

    litert_torch.convert(net, (torch.zeros(1, 1, SIDE, SIDE),)).export(str(folder / "digits.tflite"))


def write_keras(net: Any, folder: Path) -> None:
    """The same weights in Keras, channels last; as a file and as a SavedModel."""
    import os

    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    import keras

    layers = keras.layers
    inputs = keras.Input((SIDE, SIDE, 1))
    x = layers.Conv2D(8, 3, 2, activation="relu")(layers.ZeroPadding2D(1)(inputs))
    x = layers.Conv2D(16, 3, 2, activation="relu")(layers.ZeroPadding2D(1)(x))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    first, second, head = net[0], net[2], net[5]
    dense = head.weight.detach().numpy().reshape(10, 16, 4, 4).transpose(2, 3, 1, 0).reshape(256, 10)
    kernels = [layer.weight.detach().numpy().transpose(2, 3, 1, 0) for layer in (first, second)]
    biases = [layer.bias.detach().numpy() for layer in (first, second, head)]
    model.set_weights([kernels[0], biases[0], kernels[1], biases[1], dense, biases[2]])
    model.save(folder / "digits.keras")
    model.export(folder / "saved", verbose=False)


WRITERS = {"torch": write_torch, "onnx": write_onnx, "tflite": write_tflite, "keras": write_keras}


def main() -> None:
    folder, kinds = Path(sys.argv[1]), sys.argv[2:] or list(WRITERS)
    write_pictures(folder / "pictures")
    write_waves(folder / "waves.npz")
    write_sentences(folder / "sentences.tsv")
    write_walks(folder / "walks.npz")
    if "onnx" in kinds:
        write_follower(folder / "follower.onnx")
    warnings.simplefilter("ignore")
    net = reader()
    for kind in kinds:
        WRITERS[kind](net, folder)


if __name__ == "__main__":
    main()
