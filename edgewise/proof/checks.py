"""Check that a variant is what its name says: its file against the scheme, its outputs against the source's.

Some quantizers leave a model unchanged without a word, and a converter may write a model that computes something else. Both are found
here, from what formats/F/facts.py reads in the file and from the outputs of a run in a process of its own (see isolation).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import ragged
from edgewise.config.settings import nearest
from edgewise.errors import OutputsDiffer, VariantFailed
from edgewise.stats.agreement import GroupAgreement, as_rows, compare_groups, find_groups, worst_of

Arrays = dict[str, np.ndarray]

FOLDED_SHARE = 0.02  # of all weights: what converters may add to layers, such as products with constants

# What a float model agrees with, at least, of a source that computes in these types, in dB. Rounding to p bits costs 6 p + 5 dB (float16:
# 11 bits, 71 dB; bfloat16: 8 bits, 53 dB), and the noise of some 300 roundings in a row adds up to 25 dB more; 6 dB are left as a margin.
PRECISION_SQNR_DB = {"float16": 40.0, "bfloat16": 22.0}


def read_probe(source: Path) -> tuple[Arrays, Arrays]:
    """Real samples and the source's own outputs for them: inputs and outputs by name, [n, ...] or of various sizes (see agent.ragged)."""
    with np.load(source / "probe.npz") as stored:
        arrays = ragged.unpack(dict(stored))
    sides = ({key[len(side) :]: array for key, array in arrays.items() if key.startswith(side)} for side in ("in:", "out:"))
    inputs, outputs = sides
    return inputs, outputs


def check_outputs(expected: Arrays, given: Arrays, min_db: float) -> float:
    """The lowest SQNR over the groups of all outputs, in dB. Errors as of `compare_outputs`."""
    return worst_of(compare_outputs(expected, given, min_db)).sqnr_db


def compare_outputs(expected: Arrays, given: Arrays, min_db: float) -> list[GroupAgreement]:
    """Each group of each output of a variant against the source's (see stats.agreement). VariantFailed for another name or shape, NaN, a
    group that no longer moves, or less than `min_db`: OutputsDiffer, which names the group."""
    if expected.keys() != given.keys():
        raise VariantFailed(f"outputs are named {', '.join(given)}, the source's are {', '.join(expected)}")
    for name, reference in expected.items():
        _check_shapes(name, given[name], reference)
        if not np.isfinite(as_rows(given[name])).all():
            raise VariantFailed(f"output {name} holds NaN or infinite values where the source's are finite")
    found = compare_groups(expected, given)
    worst = worst_of(found)
    if worst.dead:
        raise OutputsDiffer(
            f"output {worst.name} is dead: it is the same for every sample, and the source's is not; if its values share one scale with"
            " larger ones, keep the layers behind it float (keep_float) or use another scheme",
            *(worst.output, _find_span(worst, expected[worst.output])),
        )
    if worst.sqnr_db < min_db:
        where = f" of {worst.name}" if worst.group or len(expected) > 1 else ""
        raise OutputsDiffer(
            f"outputs differ from the source: SQNR {_show_below(worst.sqnr_db, min_db)} dB{where}, this scheme needs at least {min_db:g} dB"
            " (min_sqnr_db)",
            *(worst.output, _find_span(worst, expected[worst.output])),
        )
    return found


def _show_below(found_db: float, least_db: float) -> str:
    """An SQNR with one digit, or with as many as show that it is less than the limit."""
    shown = (f"{found_db:.{digits}f}" for digits in range(1, 9))
    return next((text for text in shown if float(text) < least_db), str(found_db))


def _check_shapes(name: str, given: np.ndarray, reference: np.ndarray) -> None:
    """VariantFailed unless both have one shape, or where samples have various sizes the same shape for each."""
    shapes = zip_longest(ragged.find_shapes(given), ragged.find_shapes(reference), fillvalue="nothing more")
    for made, wanted in shapes:
        if made != wanted:
            raise VariantFailed(f"output {name} has shape {made}, the source gives {wanted}")


def _find_span(one: GroupAgreement, reference: np.ndarray) -> tuple[int, int, int]:
    """The elements of a group's axis, and where on it the group starts and stops; zeros for the whole output, and for a group that stands
    everywhere on the axis."""
    group = next(group for group in find_groups(reference) if group.name == one.group)
    return (0, 0, 0) if group.axis is None or group.period else (as_rows(reference).shape[group.axis], group.start, group.stop)


def least_sqnr_db(min_db: float, precision: str | None) -> float:
    """The SQNR that is asked for, or what can be asked for where the source itself computes in less than float32.

    The oracle of a float16 source is what that file gives, with the rounding of each of its operators. A variant that computes more
    precisely differs from it by that rounding, so no more than the precision of float16 can be asked of it.
    """
    return min(min_db, PRECISION_SQNR_DB.get(precision or "", min_db))


def list_float_nodes(facts: Mapping[str, Any]) -> list[str]:
    """The nodes with float weights."""
    return [node["name"] for node in facts["nodes"] if "float" in node["weights_dtype"]]


def select_layers(setting: str, patterns: Sequence[str], layers: Mapping[str, Sequence[str]]) -> list[str]:
    """The source layers that a setting (keep_float, keep_int8, load.at) selects by name, shell pattern, or the module that holds them.

    layers: source layer -> nodes of the file. VariantFailed for a pattern that matches none."""
    kept: set[str] = set()
    for pattern in patterns:
        found = {layer for layer in layers if fnmatchcase(layer, pattern) or layer.startswith(f"{pattern}.")}
        if not found:
            raise VariantFailed(f"{setting}: {pattern!r} matches no layer of the source; {nearest(pattern, layers)}")
        kept |= found
    return sorted(kept)


def list_nodes(kept: Iterable[str], layers: Mapping[str, Sequence[str]]) -> list[str]:
    """The nodes of the file that source layers became."""
    return sorted({node for layer in kept for node in layers[layer]})


def check_scheme(
    facts: Mapping[str, Any], scheme: Mapping[str, Any], float_nodes: Sequence[str], name: str, int8_nodes: Sequence[str] = ()
) -> float:
    """The share of the weights that have the scheme's type. VariantFailed if a node that the scheme covers does not.

    facts: of formats/F/facts.py; scheme: the declaration in SCHEMES; float_nodes, int8_nodes: nodes that the user keeps in that type.
    """
    nodes = [node for node in facts["nodes"] if node["name"] not in {*float_nodes, *int8_nodes}]
    covered_nodes = [node for node in nodes if node["operator"] in scheme["covers"]]
    done = [node for node in covered_nodes if _has_declared_dtypes(node, scheme)]
    missed = [node for node in covered_nodes if node not in done and node["elements"] >= scheme.get("least_elements", 0)]
    if missed:
        examples = ", ".join(f"{n['name']} ({n['operator']}, {n['weights_dtype']})" for n in missed[:3])
        raise VariantFailed(
            f"{name} did less than its name says: {len(missed)} of {len(covered_nodes)} nodes are not {scheme['weights']} with "
            f"{scheme['activations'] or 'any'} activations, for example {examples}; the tool left them so: list their layers in"
            " keep_float, or use another scheme"
        )
    _check_kept_nodes(facts, "keep_float", float_nodes, "float")
    _check_kept_nodes(facts, "keep_int8", int8_nodes, "int8")
    if not done and not float_nodes and scheme["weights"] != "float32":
        raise VariantFailed(f"{name} covers {', '.join(scheme['covers'])} only, and found none here to change: nothing was done")
    covered = sum(node["elements"] for node in facts["nodes"] if same_width(node["weights_dtype"], scheme["weights"]))
    return float(covered / max(1, facts["weights_elements"]))


def check_channels(facts: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """VariantFailed where the nodes of the file hold more weights than the layers of its source (details of its manifest) have: it was
    made with channels that the source lost."""
    given = sum(node["elements"] for node in facts["nodes"])
    own = sum(math.prod(shape) for shape in {layer["weight"]: layer["shape"] for layer in layers.values()}.values())
    if given > own * (1 + FOLDED_SHARE):
        raise VariantFailed(
            f"{name} has {given} weights in its layers, its pruned source has {own}: channels that were cut are still in it"
        )


def _check_kept_nodes(facts: Mapping[str, Any], setting: str, kept: Sequence[str], width: str) -> None:
    """VariantFailed if nodes that the user keeps float, or in 8 bits, are something else."""
    dtypes = {node["name"]: node["weights_dtype"] for node in facts["nodes"]}
    lost = set(kept) - dtypes.keys()
    if lost:
        raise VariantFailed(f"{setting} cannot be checked: {', '.join(sorted(lost))} are not in the file under these names")
    stray = [name for name in kept if not dtypes[name].removeprefix("u").startswith(width)]
    if stray:
        raise VariantFailed(f"{setting} was not applied: {', '.join(stray)} are not {width} in the file")


def _has_declared_dtypes(node: Mapping[str, Any], scheme: Mapping[str, Any]) -> bool:
    activations = scheme["activations"]
    return same_width(node["weights_dtype"], scheme["weights"]) and (
        activations is None or same_width(node["activations_dtype"], activations)
    )


def same_width(dtype: str, declared: str) -> bool:
    """Whether both types are the same except for the sign: uint8 is int8 with another zero point, and tools choose it for each operator."""
    return dtype.removeprefix("u") == declared.removeprefix("u")
