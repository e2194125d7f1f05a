import json

import pytest

from stages.core import results
from stages.core.errors import EdgewiseError
from tests.fabricate import FIVE, bench_result, fabricate


def test_a_bench_record_survives_writing_and_reading(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench_result(FIVE[1])))
    record = results.read(results.BenchResult, path)
    assert record.latency_ratio_ci95 == pytest.approx((0.31 * 0.988, 0.31 * 1.012))
    assert record.more["after_release_rss_bytes"] == 60_000_000 and "latency_p50_ms" not in record.more
    results.write(tmp_path / "again.json", record)
    assert results.read(results.BenchResult, tmp_path / "again.json") == record


def test_a_failed_record_is_read_as_its_reason(tmp_path):
    fabricate(tmp_path)
    record = results.read(results.Evaluation, tmp_path / "metrics/evaluate/openvino-int8-static.json")
    assert isinstance(record, results.Failed) and "covers 0 %" in record.reason
    results.write(tmp_path / "again.json", record)
    assert results.read(results.Evaluation, tmp_path / "again.json") == record


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "has schema list"),
        ('{"schema": 2, "status": "ok"}', "has schema 2, this Edgewise reads 1"),
        ('{"schema": 1, "status": "ok", "samples": 5}', "size_bytes: missing: delete"),
        ('{"schema": 1, "status": "ok", "samples": "many"}', "samples: 'many' must be a whole number"),
    ],
)
def test_a_damaged_record_is_one_clear_line(tmp_path, content, complaint):
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(EdgewiseError) as error:
        results.read(results.Evaluation, path)
    assert complaint in str(error.value) and "dvc repro" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_record_names_the_next_step(tmp_path):
    with pytest.raises(EdgewiseError, match="does not exist: run `dvc repro`"):
        results.read(results.Evaluation, tmp_path / "evaluation.json")
