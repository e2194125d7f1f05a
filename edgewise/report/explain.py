"""Why a variant is no faster than its float parent, in plain words.

The evidence: what the file holds, which instructions the CPU has, how the variant is loaded, and the operator profiles of both. The
profiles, and the medians by minute, are files beside the record of a measurement, in models/bench/NAME.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact, records
from edgewise.artifacts.records import Operators, VariantSummary
from edgewise.compress import partition
from edgewise.report import bounds
from edgewise.report.verdicts import compare_latencies
from edgewise.stats.claims import FASTER, NO_CLAIM

MODELS = Path("models")
MOST_OPERATORS = 6
MOST_NAMED = 3
AS_SLOW = 0.95  # of the parent's time: a smaller saving is below what a profile can show
LEAST_SHARE = 0.005  # of the time: operators below it are not mentioned
NARROW = ("int8", "uint8", "int4", "uint4")
# one instruction for the multiply-add of 8-bit integers; other CPUs need several
INT8_ISA = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
FP16_ISA = ("avx512_fp16", "asimdhp")
Entry = Mapping[str, Any]  # one of "types" in profile.json
Node = Mapping[str, Any]


@dataclass(frozen=True)
class Profiles:
    """profile.json of a variant and of its parent; None where there is none. conversions: operators of the file that only change the
    numeric type, with their number.

    ratios: the lower bound of the variant's latency and the upper bound of its parent's, relative to the reference. Milliseconds of two
    profile passes cannot be compared on a machine that drifts; these ratios, times an operator's share, can.
    """

    own: Mapping[str, Any] | None = None
    parents: Mapping[str, Any] | None = None
    parent: str = ""
    conversions: Mapping[str, int] = field(default_factory=dict)
    ratios: tuple[float, float] = (1.0, 1.0)

    def types(self) -> list[Entry]:
        return list(self.own["types"]) if self.own else []

    @property
    def timed(self) -> bool:
        return self.own is not None and self.own["status"] == "measured"


@dataclass(frozen=True)
class Case:
    """What the rules look at: the nodes that hold weights, layers that the user kept float, instruction sets of the CPU, profiles.
    reopened: the number of parts that each inference loads again, 0 for none."""

    nodes: tuple[Node, ...]
    kept_float: tuple[str, ...]
    isa: tuple[str, ...]
    profiles: Profiles = field(default_factory=Profiles)
    reopened: int = 0

    def having(self, weights: Iterable[str] = (), activations: Iterable[str] = ()) -> tuple[Node, ...]:
        """The nodes with one of these dtypes; an empty argument allows any."""
        wanted = {"weights_dtype": tuple(weights), "activations_dtype": tuple(activations)}
        return tuple(node for node in self.nodes if all(node[key] in dtypes or not dtypes for key, dtypes in wanted.items()))

    def share(self, nodes: Iterable[Node]) -> float:
        """The share of all weights that the nodes hold."""
        every = sum(node["elements"] for node in self.nodes) or 1
        return float(sum(node["elements"] for node in nodes) / every)


@dataclass(frozen=True)
class Reason:
    """A reason for the time of `nodes`; an empty text: does not apply."""

    nodes: tuple[Node, ...]
    text: str


def explain_rows(rows: Mapping[str, VariantSummary], device_facts: Mapping[str, Any]) -> dict[str, VariantSummary]:
    """The rows, with `explanation` filled in where a variant is no faster than the float variant of its format."""
    explained = dict(rows)
    for name, row in rows.items():
        parent = next((other for other in rows if is_parent(rows[other], row)), None)
        if parent and name != parent and may_be_no_faster(row, rows[parent]):
            folder = MODELS / "variants" / name
            facts = artifact.read(folder).details["facts"]
            ratios = (ratio_interval(row)[0], ratio_interval(rows[parent])[1])
            profiles = Profiles(read_profile(name), read_profile(parent), parent, facts.get("conversions", {}), ratios)
            case = Case(
                tuple(facts["nodes"]),
                row.proof.kept_float,
                tuple(device_facts.get("isa", ())),
                profiles,
                partition.count_reloaded_parts(folder),
            )
            against = f"{format_latency_ratio(row)} against {format_latency_ratio(rows[parent])}"
            head = f"no faster than {parent} ({against} of the reference's latency)"
            explained[name] = replace(row, explanation=(head, *find_reasons(case)))
    return explained


def is_parent(one: VariantSummary, row: VariantSummary) -> bool:
    """Whether `one` is the float32 variant in the format of `row`, and both were measured."""
    measured = one.latency.ratio_to_reference is not None and row.latency.ratio_to_reference is not None
    return measured and one.format == row.format and set(one.file.weights_bytes_by_dtype or ()) == {"float32"} and not one.proof.kept_float


def may_be_no_faster(row: VariantSummary, parent: VariantSummary) -> bool:
    """Whether both have intervals, and these do not show that the variant is faster. Nothing is said where a profile gives none."""
    return compare_latencies(row, parent) not in (FASTER, NO_CLAIM)


def ratio_interval(row: VariantSummary) -> tuple[float, ...]:
    """The interval of the ratio to the reference."""
    return row.latency.ratio_ci95 or ()


def format_latency_ratio(row: VariantSummary) -> str:
    low, high = ratio_interval(row)
    return f"{row.latency.ratio_to_reference:.2f} [{low:.2f}, {high:.2f}]"


def find_reasons(case: Case) -> list[str]:
    """The reasons that apply, those that concern most weights first; then what the profiles show."""
    found = [reason for rule in FILE_RULES if (reason := rule(case)).nodes and reason.text]
    ranked = sorted(found, key=lambda reason: -case.share(reason.nodes))
    texts = [f"{count_operators(r.nodes)} ({100 * case.share(r.nodes):.3g} % of the weights) {r.text}" for r in ranked]
    if not found:
        texts = ["nothing in the file explains it: weights and activations are narrow, and the CPU has instructions for them"]
    return texts + describe_profiles(case.profiles)


def left_float(case: Case) -> Reason:
    kept = f"; kept so by keep_float, a search or the format's own rule: {name_some(case.kept_float)}" if case.kept_float else ""
    return Reason(case.having(weights=["float32"]), f"compute in float32{kept}")


def name_some(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def in_parts(case: Case) -> Reason:
    text = f"lie in {case.reopened} parts that each inference loads and releases; load.keep: true keeps them loaded, for more memory"
    return Reason(case.nodes, text if case.reopened else "")


def dynamic_ranges(case: Case) -> Reason:
    text = "compute the range of their activations at every inference and quantize them then, which can cost more than it saves"
    return Reason(case.having(activations=["dynamic"]), text)


def widened_weights(case: Case) -> Reason:
    nodes = case.having(weights=("float16", *NARROW), activations=["float32"])
    dtypes = ", ".join(sorted({node["weights_dtype"] for node in nodes}))
    return Reason(nodes, f"store {dtypes} and compute in float32: the weights are converted first, which saves bytes but no arithmetic")


def half_precision(case: Case) -> Reason:
    lacks = case.isa and not set(FP16_ISA) & set(case.isa)
    text = f"are float16, for which this CPU has no arithmetic ({' or '.join(FP16_ISA)}), so it computes in float32"
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


FILE_RULES: tuple[Callable[[Case], Reason], ...] = (
    in_parts,
    left_float,
    dynamic_ranges,
    widened_weights,
    half_precision,
    wide_activations,
    below_a_byte,
    missing_instructions,
)


def count_operators(nodes: Iterable[Node]) -> str:
    """Nodes by operator: "20 Conv, 1 Gemm"."""
    return ", ".join(f"{count} {operator}" for operator, count in sorted(Counter(node["operator"] for node in nodes).items()))


def describe_profiles(profiles: Profiles) -> list[str]:
    """One line for each rule that applies."""
    return [text for rule in PROFILE_RULES if (text := rule(profiles))]


def find_conversions(profiles: Profiles) -> str | None:
    """Quantize and dequantize operators: those that ran, with their time; without a profile, those in the file."""
    found = [entry for entry in profiles.types() if entry["converts"]]
    if found and sum(entry["share"] or 0.0 for entry in found) >= (LEAST_SHARE if profiles.timed else 0.0):
        return f"{format_calls(found)} only convert between numeric types{format_cost(found)}"
    if profiles.own or not profiles.conversions:
        return None
    listed = ", ".join(f"{count} {name}" for name, count in sorted(profiles.conversions.items()))
    return f"its file holds {listed}, which only convert between numeric types; bench.profile=true shows how many of them run"


def find_fallbacks(profiles: Profiles) -> str | None:
    """Operators that run outside of the fast kernels, more often than in the parent."""
    before = count_calls(entry for entry in (profiles.parents or {}).get("types", ()) if entry["fallback"])
    found = [entry for entry in profiles.types() if entry["fallback"] and entry["calls"] > before[entry["type"]]]
    if not found:
        return None
    names = {entry["type"] for entry in found}
    kernels = {op["kernel"] for op in (profiles.own or {}).get("operators", ()) if op["fallback"] and op["type"] in names and op["kernel"]}
    where = f", but by {', '.join(sorted(kernels))}" if kernels else ""
    return f"{format_calls(found)} are not computed by the fast kernels of this runtime{where}{format_cost(found)}"


def compare_top_operators(profiles: Profiles) -> str | None:
    """The operator that takes most of the time, where it is no faster than the one that takes most in the parent."""
    if not profiles.timed or not profiles.types() or not profiles.parents or profiles.parents["status"] != "measured":
        return None
    mine, its = profiles.types()[0], next(iter(profiles.parents["types"]), None)
    if its is None or mine["share"] is None or its["share"] is None:  # a file without operators, or without times of some
        return None
    took, before = (ratio * entry["share"] for ratio, entry in zip(profiles.ratios, (mine, its), strict=True))
    if mine["type"] == its["type"] and mine["dtype"] == its["dtype"] or took < AS_SLOW * before:
        return None
    return (
        f"{format_calls([mine])} take at least {bounds.round_down(took, 2)} of the reference's latency, the {format_calls([its])} of"
        f" {profiles.parent} at most {bounds.round_up(before, 2)}: this runtime has no faster kernel for them on this CPU"
    )


def describe_time(profiles: Profiles) -> str | None:
    listed = top_operators(profiles.types()) if profiles.timed else ""
    return f"its time goes to {listed}" if listed else None


PROFILE_RULES: tuple[Callable[[Profiles], str | None], ...] = (compare_top_operators, find_conversions, find_fallbacks, describe_time)


def top_operators(entries: Iterable[Entry]) -> str:
    """The first few: "ConvInteger 88 %, Cast 10 %"."""
    listed = [entry for entry in entries if (entry["share"] or 0.0) >= LEAST_SHARE][:MOST_NAMED]
    return ", ".join(f"{entry['type']} {format_share(entry['share'])}" for entry in listed)


def count_calls(entries: Iterable[Entry]) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in entries:
        found[entry["type"]] += entry["calls"]
    return found


def format_calls(entries: Iterable[Entry]) -> str:
    """Number of calls and type: "17 DynamicQuantizeLinear, 20 Cast"."""
    return ", ".join(f"{count:.3g} {name}" for name, count in sorted(count_calls(entries).items()))


def format_cost(entries: Iterable[Entry]) -> str:
    """Their share of the time; empty where the runtime reports no times."""
    known = [entry for entry in entries if entry["share"] is not None]
    share, ms = sum(entry["share"] for entry in known), sum(entry["ms"] for entry in known)
    return f": {format_share(share)} of the time ({ms:.2g} ms an inference)" if known else ""


def format_share(share: float) -> str:
    """Two significant digits below 10 %, whole per cents above."""
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"


def read_operators(variant: str) -> Operators | None:
    """The operators that take most of the time, of models/bench/NAME/profile.json; None where no profile was asked for."""
    found = read_profile(variant)
    if found is None:
        return None
    return Operators(found["reason"] or found["status"], tuple(found["types"][:MOST_OPERATORS]) if found["status"] == "measured" else ())


def describe_tail(variant: str, tail: Mapping[str, Any]) -> str:
    """What stays float behind the last layers, with its time where a profile knows its operators. tail: of the manifest's details."""
    names, profile = set(tail["operators"]), read_profile(variant)
    ms = [op["ms"] for op in (profile or {}).get("operators", ()) if op["name"] in names and op["ms"] is not None]
    held = [f"{tail['bytes'] / 1000:.3g} kB of constants"] if tail["bytes"] else []
    cost = ", ".join([*held, *([f"{sum(ms):.2g} ms an inference"] if ms else [])])
    what = f"{len(names)} operators behind the last layers{f' ({cost})' if cost else ''}"
    return f"{what}: they join or decode values of unlike kinds, which 8 bits with one scale would not keep apart (tail: float)"


def read_profile(variant: str) -> dict[str, Any] | None:
    """models/bench/NAME/profile.json; None where no profile was asked for."""
    path = MODELS / "bench" / variant / "profile.json"
    return records.read_plain(path) if path.exists() else None


def read_minutes(variant: str) -> list[Mapping[str, Any]]:
    """Medians by minute of the first process, of models/bench/NAME/minutes.json; empty without a sustained run."""
    path = MODELS / "bench" / variant / "minutes.json"
    return records.read_plain(path)["variant"][0] if path.exists() else []
