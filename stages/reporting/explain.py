"""Why a variant is no faster than its float parent, in plain words, from what its file holds, what the CPU has, and the profiles."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.core import artifact, cutting
from stages.core.results import VariantSummary
from stages.reporting import evidence, passes
from stages.reporting.evidence import Profiles

MODELS = Path("models")
Node = Mapping[str, Any]
NARROW = ("int8", "uint8", "int4", "uint4")
# instructions that multiply and add 8-bit integers in one step; without one of them a CPU spends several on it
INT8_ISA = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
FP16_ISA = ("avx512_fp16", "asimdhp")


@dataclass(frozen=True)
class Case:
    """What the rules look at: nodes that hold weights, the layers that the user kept float, the CPU's instruction sets, profiles;
    reopened: in how many parts the model lies that are loaded anew at every inference, 0 for none."""

    nodes: tuple[Node, ...]
    kept_float: tuple[str, ...]
    isa: tuple[str, ...]
    profiles: Profiles = field(default_factory=Profiles)
    reopened: int = 0

    def having(self, weights: Iterable[str] = (), activations: Iterable[str] = ()) -> tuple[Node, ...]:
        """The nodes with these dtypes; none given: any."""
        wanted = {"weights_dtype": tuple(weights), "activations_dtype": tuple(activations)}
        return tuple(node for node in self.nodes if all(node[key] in dtypes or not dtypes for key, dtypes in wanted.items()))

    def share(self, nodes: Iterable[Node]) -> float:
        every = sum(node["elements"] for node in self.nodes) or 1
        return sum(node["elements"] for node in nodes) / every


@dataclass(frozen=True)
class Reason:
    nodes: tuple[Node, ...]
    text: str


def explain(rows: Mapping[str, VariantSummary], device_facts: Mapping[str, Any]) -> dict[str, VariantSummary]:
    """The rows with `explanation` where a variant is no faster than the float variant of its format."""
    explained = dict(rows)
    for name, row in rows.items():
        parent = next((other for other in rows if is_parent(rows[other], row)), None)
        if parent and name != parent and not faster(row, rows[parent]):
            folder = MODELS / "variants" / name
            facts = artifact.read(folder).details["facts"]
            ratios = (ends(row)[0], ends(rows[parent])[1])
            profiles = Profiles(passes.profile(name), passes.profile(parent), parent, facts.get("conversions", {}), ratios)
            case = Case(tuple(facts["nodes"]), row.proof.kept_float, tuple(device_facts.get("isa", ())), profiles, cutting.reopened(folder))
            head = f"no faster than {parent} ({ratio(row)} against {ratio(rows[parent])} of the reference's latency)"
            explained[name] = replace(row, explanation=(head, *reasons(case)))
    return explained


def is_parent(one: VariantSummary, row: VariantSummary) -> bool:
    """Whether `one` is the plain float form of the format of `row`, and both were measured."""
    measured = one.latency.ratio_to_reference is not None and row.latency.ratio_to_reference is not None
    return measured and one.format == row.format and set(one.file.weights_bytes_by_dtype or ()) == {"float32"} and not one.proof.kept_float


def faster(row: VariantSummary, parent: VariantSummary) -> bool:
    """Whether the intervals of the two ratios to the reference are apart; the ratios alone where the profile gives no interval."""
    if row.latency.ratio_ci95 and parent.latency.ratio_ci95:
        return row.latency.ratio_ci95[1] < parent.latency.ratio_ci95[0]
    return (row.latency.ratio_to_reference or 0) < (parent.latency.ratio_to_reference or 0)


def ends(row: VariantSummary) -> tuple[float, float]:
    """The interval of the ratio; the ratio twice where there is none."""
    low, high = row.latency.ratio_ci95 or (row.latency.ratio_to_reference or 0.0,) * 2
    return low, high


def ratio(row: VariantSummary) -> str:
    low, high = row.latency.ratio_ci95 or (None, None)
    return f"{row.latency.ratio_to_reference:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low and high else "")


def reasons(case: Case) -> list[str]:
    """What applies, the reason with most weights behind it first, each with its evidence; then what the profile shows."""
    found = [reason for rule in RULES if (reason := rule(case)).nodes and reason.text]
    ranked = sorted(found, key=lambda reason: -case.share(reason.nodes))
    texts = [f"{operators(r.nodes)} ({100 * case.share(r.nodes):.3g} % of the weights) {r.text}" for r in ranked]
    if not found:
        texts = ["nothing in the file explains it: its weights and activations are narrow and the CPU has the instructions for them"]
    return texts + evidence.told(case.profiles)


def left_float(case: Case) -> Reason:
    kept = f"; keep_float asks for {', '.join(case.kept_float)}" if case.kept_float else ""
    return Reason(case.having(weights=["float32"]), f"still compute in float32{kept}")


def in_parts(case: Case) -> Reason:
    text = f"lie in {case.reopened} parts, and each inference loads and releases them; load.keep: true keeps them, at the price of memory"
    return Reason(case.nodes, text if case.reopened else "")


def dynamic(case: Case) -> Reason:
    text = "find the range of their activations anew at every inference and quantize them then, which can cost more than it saves"
    return Reason(case.having(activations=["dynamic"]), text)


def widened(case: Case) -> Reason:
    nodes = case.having(weights=("float16", *NARROW), activations=["float32"])
    dtypes = ", ".join(sorted({node["weights_dtype"] for node in nodes}))
    return Reason(nodes, f"store {dtypes} and compute in float32: the weights are widened first, which saves bytes and no arithmetic")


def half(case: Case) -> Reason:
    lacks = case.isa and not set(FP16_ISA) & set(case.isa)
    text = f"are float16, for which this CPU has no arithmetic ({' or '.join(FP16_ISA)}): it computes in float32"
    return Reason(case.having(activations=["float16"]), text if lacks else "")


def wide_activations(case: Case) -> Reason:
    return Reason(case.having(activations=["int16", "uint16"]), "have 16-bit activations, for which few runtimes have a fast kernel")


def below_a_byte(case: Case) -> Reason:
    nodes = case.having(weights=["int4", "uint4"], activations=["dynamic", "int8", "uint8"])
    return Reason(nodes, "hold 4-bit weights, which are unpacked to 8 bits before each product")


def missing_instructions(case: Case) -> Reason:
    lacks = case.isa and not set(INT8_ISA) & set(case.isa)
    text = f"multiply 8-bit integers, for which this CPU lacks the instructions ({', '.join(INT8_ISA)})"
    return Reason(case.having(weights=NARROW, activations=["dynamic", "int8", "uint8"]), text if lacks else "")


RULES: tuple[Callable[[Case], Reason], ...] = (
    in_parts,
    left_float,
    dynamic,
    widened,
    half,
    wide_activations,
    below_a_byte,
    missing_instructions,
)


def operators(nodes: Iterable[Node]) -> str:
    """20 Conv, 1 Gemm."""
    return ", ".join(f"{count} {operator}" for operator, count in sorted(Counter(node["operator"] for node in nodes).items()))
