"""Proof that a variant is what its name says: the file against the scheme, its outputs against the source's.

Four known routes quantize nothing and say nothing; a converter may also write a model that computes something else. Both are
found here, by reading the file (formats/F/facts.py) and by running it in a process of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.config.settings import nearest
from edgewise.errors import VariantFailed

Arrays = dict[str, np.ndarray]


def probe(source: Path) -> tuple[Arrays, Arrays]:
    """Real samples and the source's own outputs for them: inputs and outputs by name, batch first."""
    with np.load(source / "probe.npz") as stored:
        arrays = dict(stored)
    sides = ({key[len(side) :]: array for key, array in arrays.items() if key.startswith(side)} for side in ("in:", "out:"))
    inputs, outputs = sides
    return inputs, outputs


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal to quantization noise ratio, 10 log10(sum r^2 / sum (r - o)^2), in dB; 200 where they are equal.

    The signal is taken about its mean over the samples: a constant output then counts as no signal at all.
    """
    reference, other = reference.astype(np.float64), other.astype(np.float64)
    signal = np.sum((reference - reference.mean(axis=0)) ** 2)
    noise = np.sum((reference - other) ** 2)
    if noise == 0:
        return 200.0
    return float(min(200.0, 10 * np.log10(max(signal, 1e-30) / noise)))


def check_outputs(expected: Arrays, given: Arrays, least_db: float) -> float:
    """The lowest SQNR over the outputs, in dB. VariantFailed for another name or shape, NaN, or less than `least_db`."""
    if list(expected) != list(given):
        raise VariantFailed(f"outputs are named {', '.join(given)}, the source's are {', '.join(expected)}")
    worst = 200.0
    for name, reference in expected.items():
        if given[name].shape != reference.shape:
            raise VariantFailed(f"output {name} has shape {given[name].shape}, the source gives {reference.shape}")
        if not np.isfinite(given[name]).all():
            raise VariantFailed(f"output {name} holds NaN or infinite values where the source's are finite")
        worst = min(worst, sqnr_db(reference, given[name]))
    if worst < least_db:
        raise VariantFailed(
            f"outputs differ from the source: SQNR {worst:.1f} dB, this scheme needs at least {least_db:g} dB (min_sqnr_db)"
        )
    return worst


def named_layers(setting: str, patterns: Sequence[str], layers: Mapping[str, Sequence[str]]) -> list[str]:
    """The source layers that a setting (keep_float, keep_int8, load.at) names: by name, shell pattern, or the module that holds them."""
    kept: set[str] = set()
    for pattern in patterns:
        found = {layer for layer in layers if fnmatchcase(layer, pattern) or layer.startswith(f"{pattern}.")}
        if not found:
            raise VariantFailed(f"{setting}: {pattern!r} matches no layer of the source; {nearest(pattern, layers)}")
        kept |= found
    return sorted(kept)


def nodes_of(kept: Iterable[str], layers: Mapping[str, Sequence[str]]) -> list[str]:
    return sorted({node for layer in kept for node in layers[layer]})


def check_scheme(
    facts: Mapping[str, Any], scheme: Mapping[str, Any], float_nodes: Sequence[str], name: str, int8_nodes: Sequence[str] = ()
) -> float:
    """The share of the weights that the scheme really covers. VariantFailed where a node that it should cover is left out.

    facts: of formats/F/facts.py; scheme: the declaration in SCHEMES; float_nodes, int8_nodes: nodes that the user keeps so.
    """
    nodes = [node for node in facts["nodes"] if node["name"] not in {*float_nodes, *int8_nodes}]
    due = [node for node in nodes if node["operator"] in scheme["covers"]]
    done = [node for node in due if _as_declared(node, scheme)]
    missed = [node for node in due if node not in done and node["elements"] >= scheme.get("least_elements", 0)]
    if missed:
        examples = ", ".join(f"{n['name']} ({n['operator']}, {n['weights_dtype']})" for n in missed[:3])
        raise VariantFailed(
            f"{name} did less than its name says: {len(missed)} of {len(due)} nodes are not {scheme['weights']} with "
            f"{scheme['activations'] or 'any'} activations, for example {examples}"
        )
    _check_kept(facts, "keep_float", float_nodes, "float")
    _check_kept(facts, "keep_int8", int8_nodes, "int8")
    if not done and not float_nodes:
        raise VariantFailed(f"{name} covers {', '.join(scheme['covers'])} only, and found none here to change: nothing was done")
    covered = sum(node["elements"] for node in facts["nodes"] if same_width(node["weights_dtype"], scheme["weights"]))
    return float(covered / max(1, facts["weights_elements"]))


def _check_kept(facts: Mapping[str, Any], setting: str, kept: Sequence[str], width: str) -> None:
    """VariantFailed where nodes that the user keeps float, or in 8 bits, are not."""
    dtypes = {node["name"]: node["weights_dtype"] for node in facts["nodes"]}
    lost = set(kept) - dtypes.keys()
    if lost:
        raise VariantFailed(f"{setting} cannot be checked: {', '.join(sorted(lost))} are not in the file under these names")
    stray = [name for name in kept if not dtypes[name].removeprefix("u").startswith(width)]
    if stray:
        raise VariantFailed(f"{setting} was not obeyed: {', '.join(stray)} are not {width} in the file")


def _as_declared(node: Mapping[str, Any], scheme: Mapping[str, Any]) -> bool:
    activations = scheme["activations"]
    return same_width(node["weights_dtype"], scheme["weights"]) and (
        activations is None or same_width(node["activations_dtype"], activations)
    )


def same_width(dtype: str, declared: str) -> bool:
    """Whether both are the same but for the sign: uint8 is int8 with another zero point, and tools choose it operator by operator."""
    return dtype.removeprefix("u") == declared.removeprefix("u")
