import dataclasses
import json

import pytest

from edgewise.artifacts import flat_metrics, records
from edgewise.artifacts.records import VariantSummary
from edgewise.errors import EdgewiseError
from edgewise.tasks.classification import PRIMARY_METRIC, SCORES
from tests.support.fabricate import FIVE, bench_result, fabricate
from tests.support.records import varied


def test_a_bench_record_survives_writing_and_reading(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench_result(FIVE[1])))
    record = records.read(records.BenchResult, path)
    assert record.latency.ratio_ci95 == pytest.approx((0.31 * 0.988, 0.31 * 1.012))
    assert record.memory.after_release_rss_bytes == 60_000_000 and record.noise == records.Noise("clean")
    records.write(tmp_path / "again.json", record)
    assert records.read(records.BenchResult, tmp_path / "again.json") == record


def test_a_failed_record_is_read_as_its_reason(tmp_path):
    fabricate(tmp_path)
    record = records.read(records.Evaluation, tmp_path / "metrics/evaluate/openvino-int8-static.json")
    assert isinstance(record, records.Failed) and "covers 0 %" in record.reason
    records.write(tmp_path / "again.json", record)
    assert records.read(records.Evaluation, tmp_path / "again.json") == record


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a record of Edgewise"),
        ('{"status": "ok"}', "is not a record of Edgewise"),
        ('{"schema": 1, "status": "ok"}', "has schema 1, this release reads schema 2 (an older release made it): run `dvc repro`"),
        ('{"schema": 3, "status": "ok"}', "has schema 3, this release reads schema 2 (another release made it): run `dvc repro`"),
        ('{"schema": 2, "status": "ok", "samples": 5}', "size_bytes: missing: delete"),
        ('{"schema": 2, "status": "ok", "samples": "many"}', "samples: 'many' must be an integer"),
    ],
)
def test_a_damaged_record_is_one_clear_line(tmp_path, content, complaint):
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(EdgewiseError) as error:
        records.read(records.Evaluation, path)
    assert (
        complaint in str(error.value) and str(path) in str(error.value) and "dvc repro" in str(error.value) and "\n" not in str(error.value)
    )


def test_a_missing_record_names_the_next_step(tmp_path):
    with pytest.raises(EdgewiseError, match="does not exist: run `dvc repro`"):
        records.read(records.Evaluation, tmp_path / "evaluation.json")


def test_a_summary_of_the_flat_release_is_named_with_what_makes_it_anew(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"schema": 1, "reference": "a", "variants": {"a": {"status": "ok", "latency_p50_ms": 1.0}}}))
    with pytest.raises(EdgewiseError, match=r"summary.json has schema 1, this release reads schema 2 .*: run `dvc repro`"):
        records.read_summary(path)


def test_every_figure_has_one_name_that_leads_to_a_record():
    """The names are what sweeps, MLflow and cards use; each record of a row is reached by some of them."""
    whole = varied(VariantSummary("onnx", "fp32", "ok"), energy_status="measured", noise_grade="noisy", threads=2, peak_rss_bytes=5)
    found = flat_metrics.flatten_summary(varied(whole, score=0.9, score_delta=-0.1, latency_p50_ms=1.5), PRIMARY_METRIC)
    assert found["accuracy_top1"] == 0.9 and found["accuracy_delta"] == -0.1 and found["latency_p50_ms"] == 1.5
    assert found["noise_grade"] == "noisy" and found["threads"] == 2 and found["peak_rss_bytes"] == 5
    assert found["energy_net_mj"] is None and "score" not in found
    reached = {path.partition(".")[0] for path in flat_metrics.metric_paths(PRIMARY_METRIC).values()}
    assert reached == {field.name for field in dataclasses.fields(VariantSummary)}


def test_the_names_of_the_flat_release_are_still_figures():
    """What users have in the objectives of their searches."""
    old = "size_bytes sqnr_db latency_p50_ms latency_p90_ms latency_p95_ms latency_p99_ms latency_ratio_to_reference load_ms"
    old += " first_inference_ms baseline_rss_bytes peak_rss_bytes peak_rss_above_baseline_bytes covered_share sqnr_to_source_db"
    old += " sqnr_as_written_db accuracy_top1 accuracy_delta accuracy_resolvable accuracy_samples_needed flips_lost kl_nats"
    assert set(old.split()) <= flat_metrics.known_names(PRIMARY_METRIC, SCORES)
