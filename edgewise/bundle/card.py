"""The card of a bundle, as Markdown and JSON: its figures with intervals, the device, and hashes of what it was made from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact, records
from edgewise.artifacts.flat_metrics import flatten_summary
from edgewise.artifacts.records import METRICS, VariantSummary
from edgewise.bundle.contents import Chosen
from edgewise.config.schema import settings_sha256, to_plain
from edgewise.report import table

USAGE = """    python -m pip install -r requirements.txt
    python infer.py {sample}
    python infer.py --check        # all files as bundled, all packages in their range"""
SAMPLES = {"image": "picture.jpg folder/", "text": '"a sentence"', "none": "samples.npy"}


def write_card(chosen: Chosen, folder: Path) -> None:
    content = make_card(chosen)
    artifact.write_json(folder / "card.json", content)
    (folder / "card.md").write_text(card_markdown(chosen, content), encoding="utf-8")


def make_card(chosen: Chosen) -> dict[str, Any]:
    """card.json: figures of the variant and of the reference, device, budget, hashes."""
    summary, name = chosen.summary, chosen.variant.name
    return {
        "variant": name,
        "reason": summary.chosen_reason,
        "reference": summary.reference,
        "budget": to_plain(summary.budget),
        "device": summary.device,
        "figures": flatten_summary(summary.variants[name], summary.primary_metric),
        "figures_of_the_reference": flatten_summary(summary.variants[summary.reference], summary.primary_metric),
        "provenance": provenance(chosen),
    }


def provenance(chosen: Chosen) -> dict[str, Any]:
    """Hashes of what the bundle was made from."""
    known = {name: records.read_plain(path) for name in ("data", "train") if (path := METRICS / f"{name}.json").exists()}
    return {
        "configuration_sha256": settings_sha256(),
        "data_digest": known.get("data", {}).get("digest"),
        "source_weights_sha256": known.get("train", {}).get("weights_sha256"),
        "files_sha256": {name: entry["sha256"] for name, entry in chosen.made.files.items()},
        "tools": dict(chosen.made.tools),
    }


def card_markdown(chosen: Chosen, content: dict[str, Any]) -> str:
    row, device = chosen.summary.variants[chosen.variant.name], content["device"]
    kind = (chosen.data.preprocessing or {"kind": "none"})["kind"]
    hashes, labels = content["provenance"], ", ".join(chosen.evaluated.labels)
    lines = [
        f"# {chosen.settings.model.name} on {chosen.settings.data.name}: {chosen.variant.name}",
        "",
        USAGE.format(sample=SAMPLES[kind]),
        "",
        f"Chosen for {chosen.summary.budget.title}: {chosen.summary.chosen_reason}.",
        f"Measured on {device['name']} ({device['facts'].get('cpu') or 'unknown CPU'}, fingerprint {device['fingerprint']}).",
        "Brackets: 95 % intervals. Another device gives other latencies.",
        "",
        "| figure | value |",
        "| ------ | ----- |",
        *(f"| {name} | {value} |" for name, value in card_figures(chosen, row)),
        "",
        f"{f'Labels: {labels}. ' if labels else ''}`answer` in `bundle.json` says how outputs become an answer.",
        "",
        *(f"- {name.replace('_', ' ')}: {hashes[name]}" for name in ("configuration_sha256", "data_digest", "source_weights_sha256")),
        *(f"- model/{name}: sha256 {digest}" for name, digest in hashes["files_sha256"].items()),
    ]
    return "\n".join(lines) + "\n"


def card_figures(chosen: Chosen, row: VariantSummary) -> Iterator[tuple[str, str]]:
    """(name, value) of every known figure, with its interval where it has one."""
    metric, reference = chosen.summary.primary_metric, chosen.summary.reference
    on_samples = f" on {row.quality.samples:,} test samples" if row.quality.samples else ""
    if metric:
        yield metric.label, table.format_score(row, metric) + on_samples
        yield f"against {reference}{', points' if metric.share else ''}", table.format_delta(row, metric)
    else:
        yield f"SQNR to {reference}, dB", table.format_sqnr(row) + on_samples
    for name, value in row.quality.scores.items():
        if f"{name}_ci95" in row.quality.scores and isinstance(value, float):
            yield (
                name.replace("_", " "),
                f"{value:.4f}" + table.format_interval(row.quality.scores[f"{name}_ci95"], lambda bound: f"{bound:.4f}"),
            )
    yield "size, MB", table.format_size(row)
    if row.latency.p50_ms is not None:
        yield "latency p50, ms", f"{row.latency.p50_ms:.3g}" + table.format_interval(row.latency.p50_ci95_ms, lambda bound: f"{bound:.3g}")
        yield f"latency / {reference}", table.format_ratio(row)
    if row.memory:
        yield "peak memory, MB", f"{row.memory.peak_rss_bytes / 1e6:.0f} ({table.format_peak(row)} above the runtime's own)"
    yield "threads", str(row.conditions.threads if row.conditions else chosen.settings.device.settings["threads"])
