"""The verdicts of benchmarks.article and benchmarks.mixed, on numbers whose verdict is known."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import mixed, spread
from benchmarks.article import __main__ as article
from benchmarks.article import sizes
from benchmarks.article.findings import OPEN, PARTLY, RIGHT, UNTESTED, WRONG, Finding, all_of, at_least, format_speedup, less
from benchmarks.article.project import Ratio
from edgewise.config import compose
from edgewise.config.schema import Variant
from tests.conftest import ROOT

pytestmark = pytest.mark.framework


def test_a_claim_holds_only_where_the_whole_interval_says_so():
    assert at_least(5.0, 6.0, 5.0) == RIGHT
    assert at_least(3.0, 4.9, 5.0) == WRONG
    assert at_least(4.0, 6.0, 5.0) == OPEN


def test_a_claim_about_several_things_holds_in_part():
    assert all_of([RIGHT, RIGHT]) == RIGHT and all_of([WRONG, WRONG]) == WRONG
    assert all_of([RIGHT, WRONG]) == PARTLY and all_of([WRONG, OPEN]) == OPEN


def test_a_ratio_is_told_as_times_faster_with_its_interval_turned():
    assert format_speedup(Ratio(0.5, 0.4, 0.8, 1.0, 2.0, "clean")) == "2.00 [1.25, 2.50]"
    assert less(40.0, 30.0) == "−25.0 %"


def test_the_page_holds_the_machine_every_claim_and_its_command():
    found = {name: Finding(f"Claim {name}.", "Tried.", ("a", "b"), [["1", "2"]], WRONG, "It was 3.") for name in article.CLAIMS}
    page = article.page(found)
    assert "Machine: " in page and "| 1 | 2 |" in page and "| Claim split. | does not hold here | It was 3. |" in page
    assert all(f"    python -m benchmarks.article {name}\n" in page for name in article.CLAIMS)


def made(name: str, right: list[int], size: int) -> mixed.Made:
    return mixed.Made(Variant(name, "onnx", name, "edgewise.formats.onnx"), np.array(right, bool), size, 3, 5, 2.0)


@pytest.fixture
def trio() -> tuple[mixed.Made, mixed.Made, mixed.Made]:
    """Static loses 5 of 10 samples and saves 300 bytes of 400."""
    return made("fp32", [1] * 10, 400), made("static", [1] * 5 + [0] * 5, 100), made("mixed", [1] * 9 + [0], 130)


def test_the_advices_call_is_untested_where_torch_has_removed_it(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.delattr(torch.ao, "quantization", raising=False)
    monkeypatch.setitem(sys.modules, "torch.ao.quantization", None)
    found = sizes.convolutions(lambda: pytest.fail("nothing is to be made"))
    assert found.verdict == UNTESTED
    assert f"torch {torch.__version__} has no `torch.ao.quantization.quantize_dynamic`" in found.because
    assert found.because in article.section("convolutions", found)


def test_what_is_won_back_and_given_up(trio):
    whole, static, between = trio
    share, low, high = mixed.won_back(between, static, whole)
    assert share == pytest.approx(0.8) and low < 0.8 <= high == 1.0
    assert mixed.given_up(between, static, whole) == pytest.approx(0.1)
    assert mixed.verdict(between, static, whole) == "* mixed: met"
    worse = made("mixed", [1] * 6 + [0] * 4, 250)
    assert mixed.verdict(worse, static, whole) == "* mixed: missed: 20% of the loss recovered and 50.0% of the saving given up"


def test_the_table_goes_below_the_words_of_the_page(tmp_path: Path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"# Words\n\n{mixed.MARK}\n\nold table\n")
    monkeypatch.setattr("sys.argv", ["mixed", "--here", "--out", str(page)])
    monkeypatch.setattr(mixed.schema, "read", lambda: None)
    monkeypatch.setattr(mixed, "page", lambda configuration: "new table\n")
    mixed.main()
    assert page.read_text() == f"# Words\n\n{mixed.MARK}\n\nnew table\n" and capsys.readouterr().out == "new table\n\n"


def test_spread_channels_compute_the_same():
    torch = pytest.importorskip("torch")
    nn, names = torch.nn, ("conv_3x3.normalization", "reduce_1x1.convolution")
    torch.manual_seed(0)
    parts = nn.BatchNorm2d(16).eval(), nn.Conv2d(16, 4, 1, bias=False)
    before = {f"m.{name}.{key}": t.detach().numpy() for name, part in zip(names, parts, strict=True) for key, t in part.named_parameters()}
    after = spread.spread(before, 6.0, seed=0)
    inputs = torch.rand(2, 16, 3, 3)

    def run(weights):
        with torch.no_grad():
            for name, part in zip(names, parts, strict=True):
                for key, tensor in part.named_parameters():
                    tensor.copy_(torch.from_numpy(weights[f"m.{name}.{key}"]))
            return parts[1](parts[0](inputs)).numpy()

    np.testing.assert_allclose(run(after), run(before), rtol=1e-4, atol=1e-5)
    sizes = np.abs(after["m.conv_3x3.normalization.weight"])
    assert 1 < np.log2(sizes.max() / sizes.min()) <= 6


def test_the_study_is_trained_spread_and_made_again_without_training(tmp_path: Path, monkeypatch):
    told = []
    monkeypatch.setattr(mixed, "run", lambda folder, *command: told.append((folder.name, *command)) or "the table\n")
    assert mixed.study(tmp_path, 6.0) == "the table\n"
    spread_file = str(tmp_path / "spread.safetensors")
    trained = str(tmp_path / "trained/models/source/weights.safetensors")
    assert (tmp_path.name, "benchmarks.spread", trained, spread_file, "--octaves", "6.0") in told
    assert told[-1] == ("spread", "benchmarks.mixed", "--here")
    assert [command for folder, *command in told if folder == "spread"][:-1] == [c for folder, *c in told if folder == "trained"]
    again = compose.compose(tmp_path / "spread/params.yaml", ROOT / "conf")
    assert again.model.settings["weights"] == spread_file and again.train.epochs == 0
    assert compose.compose(tmp_path / "trained/params.yaml", ROOT / "conf").train.epochs == 12
