"""What the files beside the record of a measurement hold: time by operator, and the medians minute by minute."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact, records
from edgewise.artifacts.records import Operators, VariantSummary
from edgewise.compress import partition

COST_MODELS = Path("models")
MOST_OPERATORS = 6


def operators(variant: str) -> Operators | None:
    """Of models/bench/V/profile.json; None where no profile was asked for."""
    found = profile(variant)
    if found is None:
        return None
    return Operators(found["reason"] or found["status"], tuple(found["types"][:MOST_OPERATORS]) if found["status"] == "measured" else ())


def profile(variant: str) -> dict[str, Any] | None:
    """models/bench/V/profile.json; None where no profile was asked for."""
    path = COST_MODELS / "bench" / variant / "profile.json"
    return records.read_plain(path) if path.exists() else None


def minutes(variant: str) -> list[Mapping[str, Any]]:
    """The first process of models/bench/V/minutes.json, minute by minute; none where nothing ran for minutes."""
    path = COST_MODELS / "bench" / variant / "minutes.json"
    return records.read_plain(path)["variant"][0] if path.exists() else []


# What the profiles of a variant and of its float parent say about the time of the variant, in plain words.

Entry = Mapping[str, Any]  # of "types" in profile.json
MOST_NAMED = 3
AS_SLOW = 0.95  # of the parent's time: what saves less than this saves nothing that a profile could show
LEAST_SHARE = 0.005  # of the time: less is not worth a word


@dataclass(frozen=True)
class Profiles:
    """profile.json of both; None where there is none. conversions: operators of the file that only change the numeric type.

    ratios: the least that the variant's latency may be and the most that its parent's may be, in units of the reference's. Milliseconds
    of two profile passes do not compare on a machine that drifts; these, times a share, do.
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


def told(profiles: Profiles) -> list[str]:
    """All that applies."""
    return [text for rule in RULES if (text := rule(profiles))]


def conversions(profiles: Profiles) -> str | None:
    """Quantize and dequantize operators: those that ran, with their time; without a profile those of the file."""
    found = [entry for entry in profiles.types() if entry["converts"]]
    if found and sum(entry["share"] or 0.0 for entry in found) >= (LEAST_SHARE if profiles.timed else 0.0):
        return f"{counted(found)} only convert between numeric types{cost(found)}"
    if profiles.own or not profiles.conversions:
        return None
    listed = ", ".join(f"{count} {name}" for name, count in sorted(profiles.conversions.items()))
    return f"its file holds {listed}, which only convert between numeric types; how many the runtime keeps, bench.profile=true tells"


def fallback(profiles: Profiles) -> str | None:
    """Operators outside of the fast kernels, beyond those that its parent has there too."""
    before = calls(entry for entry in (profiles.parents or {}).get("types", ()) if entry["fallback"])
    found = [entry for entry in profiles.types() if entry["fallback"] and entry["calls"] > before[entry["type"]]]
    if not found:
        return None
    names = {entry["type"] for entry in found}
    kernels = {op["kernel"] for op in (profiles.own or {}).get("operators", ()) if op["fallback"] and op["type"] in names and op["kernel"]}
    where = f", but by {', '.join(sorted(kernels))}" if kernels else ""
    return f"{counted(found)} are not computed by the fast kernels of this runtime{where}{cost(found)}"


def no_gain(profiles: Profiles) -> str | None:
    """The operator that takes most time, against the one that takes most in the parent."""
    if not profiles.timed or not profiles.parents or profiles.parents["status"] != "measured":
        return None
    mine, its = profiles.types()[0], profiles.parents["types"][0]
    took, before = (ratio * entry["share"] for ratio, entry in zip(profiles.ratios, (mine, its), strict=True))
    if mine["type"] == its["type"] and mine["dtype"] == its["dtype"] or took < AS_SLOW * before:
        return None
    return (
        f"{counted([mine])} take at least {took:.2f} of the reference's latency, the {counted([its])} of {profiles.parent} "
        f"at most {before:.2f}: this runtime has no faster kernel for them on this CPU"
    )


def where_it_goes(profiles: Profiles) -> str | None:
    if not profiles.timed:
        return None
    return f"its time goes to {foremost(profiles.types())}"


RULES: tuple[Callable[[Profiles], str | None], ...] = (no_gain, conversions, fallback, where_it_goes)


def foremost(entries: Iterable[Entry]) -> str:
    """ConvInteger 88 %, Cast 10 %: the first few, as far as they matter."""
    listed = [entry for entry in entries if entry["share"] >= LEAST_SHARE][:MOST_NAMED]
    return ", ".join(f"{entry['type']} {percent(entry['share'])}" for entry in listed)


def calls(entries: Iterable[Entry]) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in entries:
        found[entry["type"]] += entry["calls"]
    return found


def counted(entries: Iterable[Entry]) -> str:
    """17 DynamicQuantizeLinear, 20 Cast."""
    return ", ".join(f"{count:.3g} {name}" for name, count in sorted(calls(entries).items()))


def cost(entries: Iterable[Entry]) -> str:
    """Their part of the time; nothing where the runtime gives no times."""
    known = [entry for entry in entries if entry["share"] is not None]
    share, ms = sum(entry["share"] for entry in known), sum(entry["ms"] for entry in known)
    return f": {percent(share)} of the time ({ms:.2g} ms an inference)" if known else ""


def percent(share: float) -> str:
    """Two digits below a tenth, whole ones above."""
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"


# Why a variant is no faster than its float parent, in plain words, from what its file holds, what the CPU has, and the profiles.

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
        return float(sum(node["elements"] for node in nodes) / every)


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
            profiles = Profiles(profile(name), profile(parent), parent, facts.get("conversions", {}), ratios)
            case = Case(
                tuple(facts["nodes"]),
                row.proof.kept_float,
                tuple(device_facts.get("isa", ())),
                profiles,
                partition.count_reloaded_parts(folder),
            )
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
    found = [reason for rule in EXPLANATIONS if (reason := rule(case)).nodes and reason.text]
    ranked = sorted(found, key=lambda reason: -case.share(reason.nodes))
    texts = [f"{explain_operators(r.nodes)} ({100 * case.share(r.nodes):.3g} % of the weights) {r.text}" for r in ranked]
    if not found:
        texts = ["nothing in the file explains it: its weights and activations are narrow and the CPU has the instructions for them"]
    return texts + told(case.profiles)


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


EXPLANATIONS: tuple[Callable[[Case], Reason], ...] = (
    in_parts,
    left_float,
    dynamic,
    widened,
    half,
    wide_activations,
    below_a_byte,
    missing_instructions,
)


def explain_operators(nodes: Iterable[Node]) -> str:
    """20 Conv, 1 Gemm."""
    return ", ".join(f"{count} {operator}" for operator, count in sorted(Counter(node["operator"] for node in nodes).items()))
