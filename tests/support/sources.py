"""A small source for tests: a convolutional net with everything that conversions stumble on, trained for a moment."""

from pathlib import Path

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port

LABELS = ("calm", "rising", "falling", "wavy")
SIZE = 16


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n, 3, 16, 16] with a gradient or waves by class, and int64 targets [n]."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, len(LABELS), count)
    ramp = np.linspace(-1, 1, SIZE, dtype=np.float32)
    shapes = np.stack([0 * ramp, ramp, -ramp, np.sin(7 * ramp)])
    rows = shapes[targets][:, None, None, :] * np.ones((1, 3, SIZE, 1), np.float32)
    return (rows + random.normal(0, 0.3, rows.shape)).astype(np.float32), targets


def feeds_for(source: Path) -> list[dict[str, np.ndarray]]:
    """64 feeds to calibrate with, channels last where the source takes them so."""
    last = artifact.read(source).inputs[0].shape[-1] == 3
    return [{"image": (picture.transpose(1, 2, 0) if last else picture)[None]} for picture in pictures(64, 7)[0]]


def network():
    """Convolution, batch norm, residual, depthwise, max pool with padding, and a linear head."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(16)
            self.pool = nn.MaxPool2d(3, 2, 1)
            self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
            self.block = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
            self.head = nn.Linear(32, len(LABELS))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            stem = self.pool(torch.relu(self.norm(self.stem(image))))
            return self.head(self.block(stem + self.depthwise(stem)).mean((2, 3)))

    return Net()


def trained():
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = network().train()
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    for step in range(40):
        inputs, targets = (torch.from_numpy(array) for array in pictures(64, step))
        optimizer.zero_grad()
        cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    return net


def write(folder: Path) -> Path:
    """models/source as train-export writes it."""
    from edgewise.sources import torch_source

    folder.mkdir(parents=True)
    fields = torch_source.export(torch_source.wrap(trained()), {"image": pictures(16, 99)[0]}, ("logits",), folder)
    inputs = (Port("image", (None, 3, SIZE, SIZE), "float32", "NCHW", "image"),)
    outputs = (Port("logits", (None, len(LABELS)), "float32", None, "logits"),)
    given = {key: fields[key] for key in ("format", "details", "tools") if key in fields}
    artifact.write(folder, Manifest(kind="source", inputs=inputs, outputs=outputs, labels=LABELS, **given))
    return folder


def digits_network(num_labels: int = 10):
    """The smallest net that learns digits: for runs of the whole pipeline."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, num_labels),
    )
