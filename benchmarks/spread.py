"""Weights of a MobileNetV2 whose channels differ in scale as in models trained for long, and which compute the same.

    python -m benchmarks.spread models/source/weights.safetensors spread.safetensors --octaves 5

A net trained for some minutes has channels of similar scale and loses nothing with int8-static. In MobileNetV2 as trained on ImageNet the
channels of the depthwise convolutions differ a hundredfold, and one scale per tensor ruins it (Nagel et al. 2019, "Data-Free Quantization
Through Weight Equalization and Bias Correction", figure 2). Here each such channel is divided by a random factor, and the weights that
read it are multiplied by it: the inverse of the equalization of that paper.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

DEPTHWISE = re.compile(r"(.*)\.conv_3x3\.normalization\.weight")


def spread(weights: Mapping[str, np.ndarray], octaves: float, seed: int) -> dict[str, np.ndarray]:
    """weights: by the names of transformers' MobileNetV2. octaves: the largest factor is 2 to this power."""
    rng, made = np.random.default_rng(seed), dict(weights)
    for name in sorted(weights):
        if found := DEPTHWISE.fullmatch(name):
            factors = np.exp2(-rng.uniform(0, octaves, len(weights[name]))).astype(np.float32)
            for half in ("weight", "bias"):
                key = f"{found[1]}.conv_3x3.normalization.{half}"
                made[key] = weights[key] * factors
            key = f"{found[1]}.reduce_1x1.convolution.weight"
            made[key] = weights[key] / factors[None, :, None, None]
    return made


def main() -> None:
    from safetensors.numpy import load_file, save_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--octaves", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    save_file(spread(load_file(arguments.source), arguments.octaves, arguments.seed), arguments.target)


if __name__ == "__main__":
    main()
