"""The page of all runtimes: which variants are run, and what of the page is written anew."""

from pathlib import Path

from benchmarks import runtimes
from edgewise.artifacts.records import FileFacts, JudgedLatency, Proof, Quality, Summary, VariantSummary
from edgewise.config.compose import Options, section
from edgewise.config.schema import Bench, Budget
from edgewise.plugins import PrimaryMetric
from edgewise.sweep.points import compose_point
from tests.conftest import ROOT
from tests.support.formats import FORMATS, form

HEAD = "# Runtimes\n\nText.\n\n## Measured\n"


def summary(**variants: VariantSummary) -> Summary:
    metric = PrimaryMetric("accuracy_top1", "accuracy", "accuracy", "accuracy")
    return Summary("onnx-fp32", {}, variants, (), None, "", Budget("none"), metric)


def test_formats_that_are_not_there_are_left_out_and_all_others_run():
    chosen = runtimes.study_overrides("vit_tiny", None, "smoke", [name for name in FORMATS if name != "ncnn"], ["train.epochs=1"])
    assert [text for text in chosen if text.startswith("~variants")] == ["~variants.ncnn-fp32", "~variants.ncnn-int8-static"]
    assert chosen[:1] == ["model.name=vit_tiny"] and chosen[-1] == "train.epochs=1" and "bench.name=smoke" in chosen


def test_a_profile_takes_the_place_of_the_studys_own_measuring():
    text, options = (ROOT / "conf/studies/runtimes.yaml").read_text(), Options(ROOT / "conf")
    own, smoke = (runtimes.study_overrides("mobilenet_v2", None, profile, FORMATS, ()) for profile in (None, "smoke"))
    bench = compose_point(text, tuple(own), options).config.bench
    assert (bench.name, bench.processes, bench.blocks) == ("quick", 3, 16) and bench.claims
    assert compose_point(text, tuple(smoke), options).config.bench == section(Bench, "bench", {"name": "smoke"}, options)
    assert runtimes.describe_bench("smoke") == "`smoke`"
    assert runtimes.describe_bench(None) == "`quick` with processes 3, max_processes 3, blocks 16"


def test_the_study_has_every_format_in_float_and_in_8_bits_where_it_has_them():
    variants = runtimes.read_variants()
    for name in FORMATS:
        expected = ["fp32"] + ["int8"] * any(scheme.startswith("int8") for scheme in form(name)["schemes"])
        assert [v["scheme"][:4] for v in variants.values() if v["format"] == name] == expected, (
            f"{name}: add it to conf/studies/runtimes.yaml"
        )


def test_a_row_has_what_is_known_and_a_failed_variant_its_reason():
    known = VariantSummary(
        *("mnn", "int8-static", "ok"),
        file=FileFacts(size_bytes=11_200_000),
        proof=Proof(covered_share=0.5, sqnr_to_source_db=35.27),
        quality=Quality(score=0.98333),
        latency=JudgedLatency(ratio_to_reference=0.5, ratio_ci95=(0.4, 0.6), p50_ms=1.234),
    )
    lines = runtimes.table(summary(mnn=known, ncnn=VariantSummary("ncnn", "fp32", "failed", "ncnn is not installed"))).splitlines()
    assert lines[2] == "| mnn | 11.2 | 50% | 35.3 | 0.9833 | 0.500 [0.400, 0.600] | 1.23 | - | - | - |"
    assert lines[3] == "| ncnn | ncnn is not installed |" and len({line.count("|") for line in lines[:3]}) == 1


def test_a_run_replaces_its_own_sections_and_keeps_the_others(tmp_path: Path):
    page = tmp_path / "runtimes.md"
    page.write_text(HEAD)
    runtimes.write_page(page, {"The runtimes": "first", "vit_tiny": "old"})
    runtimes.write_page(page, {"resnet18": "new", "The runtimes": "second"})
    text = page.read_text()
    assert text == f"{HEAD}\n### The runtimes\n\nsecond\n\n### resnet18\n\nnew\n\n### vit_tiny\n\nold\n"


def test_a_wheel_is_about_as_large_as_its_files_deflated(tmp_path: Path):
    (tmp_path / "zeros").write_bytes(bytes(3 << 20))
    assert 0 < runtimes.deflated_bytes(tmp_path / "zeros") < 10_000
    assert runtimes.deflated_bytes(tmp_path / "absent") == 0
