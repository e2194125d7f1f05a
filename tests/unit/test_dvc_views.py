"""What `dvc metrics show`, `dvc exp show` and `dvc plots show` present: few columns, and a page that says what it needs."""

import configparser
import json
from pathlib import Path

import pytest
import yaml
from dvc_render import render_html
from dvc_render.vega import VegaRenderer

from edgewise.report import overview
from tests.conftest import ROOT
from tests.support.fabricate import FIVE, THIRTEEN, fabricate, write_report

COLUMNS = {"accuracy_top1", "ratio", "size_mb", "peak_mb"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared() -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in overview.COMPARED.iterdir()}


def test_each_variant_is_a_row_of_four_columns(project):
    fabricate(project, THIRTEEN)
    write_report()
    found = compared()
    assert set(found) == {row.name for row in THIRTEEN} and all(values.keys() == COLUMNS for values in found.values())
    row = found["onnx-int8-static"]
    assert (row["accuracy_top1"], row["ratio"], row["size_mb"]) == (0.9519, 0.31, 11.4)


def test_a_failed_variant_says_so_and_a_former_one_is_gone(project):
    fabricate(project, THIRTEEN)
    write_report()
    fabricate(project, FIVE)
    write_report()
    found = compared()
    assert set(found) == {row.name for row in FIVE} and found["openvino-int8-static"] == {"status": "failed"}


def test_without_scores_the_agreement_is_compared(project):
    fabricate(project, FIVE, task="none")
    write_report()
    assert "sqnr_db" in compared()["onnx-int8-static"]


def test_nothing_else_is_a_metric():
    """Each value of a metrics file is a column of `dvc exp show`, for each variant anew."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    metrics = [path for stage in stages for entry in stage.get("do", stage).get("metrics", []) for path in entry]
    assert metrics == [str(overview.COMPARED)]


def test_what_git_keeps_of_a_stage_that_takes_long_is_no_plain_output():
    """DVC's run-cache leaves out stages with such outputs; those that always run have none to lose, and a report takes seconds."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        kept = [entry for entry in stage.get("do", stage).get("outs", []) if isinstance(entry, dict)]
        assert stage.get("always_changed") or not kept or name == "report", name


def test_the_page_of_plots_says_what_it_needs(project):
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    template = ROOT / ".dvc" / config["plots"]["html_template"]
    drawn = VegaRenderer([{"epoch": 1, "loss": 2.0, "rev": "now"}], "curve", x="epoch", y="loss")
    page = Path(render_html([drawn, VegaRenderer([], "record")], project / "plots/index.html", html_template=template)).read_text()
    assert 'id = "curve"' in page and "<script src=" in page and "{plot_divs}" not in page and "{scripts}" not in page
    assert '<p id="offline" hidden>These plots need a network' in page
