"""More threads than the device has cores: said by the probe, in the report, and in place of blaming other processes."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.artifacts import artifact, records
from edgewise.artifacts.records import Noise, NoiseEvidence
from edgewise.cli import probing
from edgewise.measure import threads
from edgewise.report import findings, terminal
from tests.support.fabricate import fabricate, write_report

SAID = "device.threads is 4, but local has 2 cores for a process"


@pytest.mark.parametrize(
    ("facts", "cores"),
    [
        ({"cores_allowed": 2, "cpu_quota_cores": None}, 2),
        ({"cores_allowed": 8, "cpu_quota_cores": 1.5}, 2),
        ({"cores_allowed": 1, "cpu_quota_cores": 4.0}, 1),
        ({}, None),
    ],
)
def test_the_cores_that_a_process_may_use(facts, cores):
    assert threads.count_cores(facts) == cores
    assert threads.warn_of_threads(cores or 64, facts, "pi") is None
    if cores:
        assert f"pi has {cores} core" in str(threads.warn_of_threads(cores + 1, facts, "pi"))


def test_the_report_says_it_and_does_not_blame_other_processes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path)
    device = records.read_plain(Path("metrics/device.json"))
    artifact.write_json(Path("metrics/device.json"), {**device, "facts": {**device["facts"], "cores_allowed": 2}})
    assert SAID not in "".join(write_report().warnings)
    for path in Path("metrics/bench").glob("*.json"):
        record = records.read_plain(path)
        if "conditions" in record:
            artifact.write_json(path, {**record, "conditions": {**record["conditions"], "threads": 4}})
    summary = write_report()
    assert SAID in Path("metrics/report.md").read_text() and any(SAID in text for text in terminal.find_remarks(summary))
    noise = Noise("degraded", "words", NoiseEvidence(disturbed_share=0.23), "disturbed_share")
    rows = {name: replace(row, noise=noise if row.conditions else None) for name, row in summary.variants.items()}
    (line,) = findings.describe_disturbances(replace(summary, variants=rows))
    assert "its own threads, more than cores, or other processes took the processor in 23 % of the runs" in line
    assert "set device.threads to 2 or 1, or measure again" in line and "stop them" not in line


def test_a_probe_says_what_a_bundle_needs_there():
    said = list(probing.describe_needs({"pillow": "13.0.0", "tokenizers": None}))
    assert said == ["pillow 13.0.0 (for models of pictures install 'pillow>=10,<13')", "tokenizers missing (for models of text)"]
    assert list(probing.describe_needs({"pillow": "12.3.0", "tokenizers": "0.22.1"})) == ["pillow 12.3.0", "tokenizers 0.22.1"]
