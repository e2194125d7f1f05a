"""The card of a bundle: what was measured of it, where, with which uncertainty, and what it was made from. Markdown and JSON."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.bundling.contents import Chosen
from stages.core import artifact, results
from stages.core.config import PATH, to_plain
from stages.core.results import METRICS, VariantSummary
from stages.reporting import table

USAGE = """    python -m pip install -r requirements.txt
    python infer.py {sample}
    python infer.py --check        # all files as bundled, all packages in their range"""
SAMPLES = {"image": "picture.jpg folder/", "text": '"a sentence"', "none": "samples.npy"}


def write(chosen: Chosen, folder: Path) -> None:
    content = card(chosen)
    artifact.write_json(folder / "card.json", content)
    (folder / "card.md").write_text(markdown(chosen, content), encoding="utf-8")


def card(chosen: Chosen) -> dict[str, Any]:
    """Everything that the report says of the variant, the device, and the hashes."""
    summary, name = chosen.summary, chosen.variant.name
    return {
        "variant": name,
        "reason": summary.chosen_reason,
        "reference": summary.reference,
        "budget": to_plain(summary.budget),
        "device": summary.device,
        "figures": results.plain_row(summary.variants[name], summary.headline),
        "figures_of_the_reference": results.plain_row(summary.variants[summary.reference], summary.headline),
        "provenance": provenance(chosen),
    }


def provenance(chosen: Chosen) -> dict[str, Any]:
    """Hashes of what the bundle was made from."""
    known = {name: results.read_plain(path) for name in ("data", "train") if (path := METRICS / f"{name}.json").exists()}
    return {
        "configuration_sha256": artifact.sha256(PATH),
        "data_digest": known.get("data", {}).get("digest"),
        "source_weights_sha256": known.get("train", {}).get("weights_sha256"),
        "files_sha256": {name: entry["sha256"] for name, entry in chosen.made.files.items()},
        "tools": dict(chosen.made.tools),
    }


def markdown(chosen: Chosen, content: dict[str, Any]) -> str:
    row, device = chosen.summary.variants[chosen.variant.name], content["device"]
    kind = (chosen.data.preprocessing or {"kind": "none"})["kind"]
    hashes = content["provenance"]
    lines = [
        f"# {chosen.settings.model.name} on {chosen.settings.data.name}: {chosen.variant.name}",
        "",
        USAGE.format(sample=SAMPLES[kind]),
        "",
        f"Chosen for the budget '{chosen.summary.budget.name}': {chosen.summary.chosen_reason}.",
        f"Measured on {device['name']} ({device['facts'].get('cpu') or 'unknown CPU'}, fingerprint {device['fingerprint']}).",
        "Brackets: 95 % intervals. Another device gives other latencies.",
        "",
        "| figure | value |",
        "| ------ | ----- |",
        *(f"| {name} | {value} |" for name, value in figures(chosen, row)),
        "",
        f"Labels: {', '.join(chosen.evaluated.labels)}. An answer is made as `bundle.json` says under `answer`.",
        "",
        *(f"- {name.replace('_', ' ')}: {hashes[name]}" for name in ("configuration_sha256", "data_digest", "source_weights_sha256")),
        *(f"- model/{name}: sha256 {digest}" for name, digest in hashes["files_sha256"].items()),
    ]
    return "\n".join(lines) + "\n"


def figures(chosen: Chosen, row: VariantSummary) -> Iterator[tuple[str, str]]:
    """Name and value of what is known, with its interval where it has one."""
    headline, reference = chosen.summary.headline, chosen.summary.reference
    if headline:
        yield headline.label, f"{table.score(row, headline)} on {row.samples:,} test samples" if row.samples else table.score(row, headline)
        yield f"against {reference}{', points' if headline.share else ''}", table.delta(row, headline)
    for name, value in row.scores.items():
        if f"{name}_ci95" in row.scores and isinstance(value, float):
            yield name.replace("_", " "), f"{value:.4f}" + table.bracket(row.scores[f"{name}_ci95"], lambda bound: f"{bound:.4f}")
    yield "size, MB", table.size(row)
    if row.latency_p50_ms is not None:
        yield "latency p50, ms", f"{row.latency_p50_ms:.3g}" + table.bracket(row.latency_p50_ci95_ms, lambda bound: f"{bound:.3g}")
        yield f"latency / {reference}", table.ratio(row)
    if row.peak_rss_bytes is not None:
        yield "peak memory, MB", f"{row.peak_rss_bytes / 1e6:.0f} ({table.peak(row)} above the runtime's own)"
    yield "threads", str(row.threads or chosen.settings.device.settings["threads"])
