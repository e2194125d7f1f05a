"""The page: one file, nothing from the network, safe with any text, drawn in a real browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.records import SCHEMA, read_summary
from edgewise.config import schema
from edgewise.config.schema import Budget, Plugin
from edgewise.data import splitting
from edgewise.report import answer, changes, gallery, page
from edgewise.tasks import classification
from edgewise.tasks.classification import PRIMARY_METRIC
from tests.support.fabricate import FIVE, LABELS, THIRTEEN, fabricate, write_report

PAGE = "models/report/report.html"
VOID = {"meta", "link", "br", "img", "input"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def render_page(root, rows=FIVE, **options) -> str:
    fabricate(root, rows, **options)
    write_report()
    return (root / PAGE).read_text(encoding="utf-8")


class Structure(HTMLParser):
    """Open elements must close in order; addresses are collected."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing_from_outside(project):
    text = render_page(project, THIRTEEN, budget=Budget("small", size_bytes=12_000_000, accuracy_drop_points=2.5))
    structure = Structure(text)
    assert structure.open == []
    assert all(address.startswith("data:") for address in structure.addresses)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    for title in (
        "Pareto front",
        "Before and after",
        "Every variant",
        "The budget",
        "Memory step by step",
        "Class by class",
        "Samples with errors",
    ):
        assert title in text
    assert all(f'data-name="{row.name}"' in text for row in THIRTEEN)
    assert "numpy 2.4.6, onnxruntime 1.31.1" in text and "avx2, avx512f" in text


def test_the_page_is_named_after_the_users_files(project):
    """The options that read them, onnx_file and image_folder, say nothing."""
    fabricate(project)
    write_report()
    settings = schema.read()
    model, data = Plugin("onnx_file", "x", {"path": "nets/my.onnx"}), Plugin("image_folder", "y", {"path": "/data/tiles"})
    text = page.render(read_summary(), replace(settings, model=model, data=data))
    assert "<h1>my on tiles</h1>" in text and "<title>my on tiles " in text


def test_packages_that_are_not_there_are_not_listed():
    assert page.keep_installed({"MNN": None, "numpy": "2.4.6"}) == {"numpy": "2.4.6"}


def test_the_script_gets_what_the_summary_says(project):
    text = render_page(project)
    points = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert {point["name"] for point in points} == {row.name for row in FIVE if not row.fails_in}
    (static,) = [point for point in points if point["name"] == "onnx-int8-static"]
    assert static["latency_ratio_ci95"] == pytest.approx([0.31 * 0.988, 0.31 * 1.012]) and static["verdict"] == "faster within this visit"


def test_the_table_does_not_repeat_what_its_first_line_says(project):
    text = render_page(project)
    body = text.split('id="variants"')[1].split("</table>")[0]
    assert "hold within this visit only" in text and "within this visit" not in body and ">faster<" in body
    assert "(<code>edgewise trust</code> measures" in text


def test_text_in_backticks_is_code_and_still_no_markup():
    assert page.mark_code("call `dvc <repro>` & look") == "call <code>dvc &lt;repro&gt;</code> &amp; look"


def test_text_from_outside_is_never_markup(project):
    fabricate(project)
    path = project / "metrics/evaluate/onnx-int8-static.json"
    path.write_text(json.dumps({"schema": SCHEMA, "status": "failed", "reason": "</script><script>alert(1)</script>"}))
    write_report()
    text = (project / PAGE).read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text


def test_a_page_without_latency_pictures_or_budget_leaves_these_out(project):
    fabricate(project, bench=False)
    shutil.rmtree(project / "models/data")
    write_report()
    text = (project / PAGE).read_text()
    assert "Samples with errors" not in text and "Memory step by step" not in text and "without bench-on-device" in text


def test_a_page_without_a_variant_that_was_made_says_so_first(project):
    text = render_page(project, [replace(row, fails_in="variants") for row in FIVE])
    assert "Every variant failed" in text and '<section id="front" hidden>' in text and "covers 0 %" in text
    assert "Every variant failed" not in render_page(project)


def test_a_page_of_a_failed_reference_is_still_made(project):
    text = render_page(project, [replace(FIVE[0], fails_in="evaluate"), *FIVE[1:]])
    assert "the reference onnx-fp32 failed" in text


def test_pictures_are_those_that_one_of_the_two_gets_wrong(project):
    fabricate(project)
    found = gallery.pick_pictures("onnx-fp32", "onnx-int8-static", classification)
    assert [picture.kind for picture in found[:5]] == ["lost"] * 3 + ["gained", "both wrong"]
    assert all(picture.before == picture.truth != picture.after for picture in found[:3])
    assert len(found) == gallery.MOST_PICTURES and all(picture.source.startswith("data:image/png;base64,") for picture in found)
    assert gallery.pick_pictures("onnx-fp32", "openvino-int8-static", classification) == []


def test_classes_come_with_the_greatest_change_first(project):
    fabricate(project)
    found = page.class_changes("onnx-fp32", "onnx-int8-static")
    assert {change.label for change in found} == set(LABELS) and sum(change.samples for change in found) == 540
    assert sum(change.delta * change.samples for change in found) == pytest.approx(-2)  # three lost, one gained
    assert [abs(change.delta) for change in found] == sorted((abs(change.delta) for change in found), reverse=True)


def test_classes_of_few_samples_stand_at_the_end(monkeypatch):
    before, after = ({"rare": rare, "usual": usual} for rare, usual in ((1.0, 0.9), (0.0, 0.8)))
    found = {name: page.ByClass("Recall", "samples", each, {"rare": 1, "usual": 40}) for name, each in (("a", before), ("b", after))}
    monkeypatch.setattr(page, "read_by_class", found.get)
    assert [change.label for change in page.class_changes("a", "b")] == ["usual", "rare"]


def test_the_page_names_what_is_counted_by_class(project):
    text = render_page(project)
    assert "<th>samples</th>" in text and "stand at the end" not in text
    assert "stand at the end" in render_page(project, samples=60)


def test_a_note_on_the_data_is_no_alarm_but_a_leak_is(project):
    fabricate(project)
    leaked = {
        "unreadable": {"count": 0},
        "copies": {"with_another_label": 0},
        "groups_in_two_splits": 3,
        "counts": {"test": {"a": 1, "b": 0}},
    }
    notes = splitting.list_warnings(leaked)
    data = artifact.read(project / "models/data")
    artifact.write(project / "models/data", replace(data, details={**data.details, "notes": notes}))
    summary = replace(write_report(), warnings=(*notes, "the source is wrong"))
    found = page.build_context(summary, schema.read())
    assert found["notes"] == ["test has no sample of: b"]
    assert found["alarms"] == [
        "3 groups (or copies of a file) are in two of the data's own splits: scores will be too good",
        "the source is wrong",
    ]


def test_the_page_sets_the_chosen_or_else_the_fastest_against_the_reference(project):
    fabricate(project)
    summary = write_report()
    assert page.choose_focus(summary) == "onnx-int8-static"
    assert page.choose_focus(replace(summary, chosen="tflite-int4-weight")) == "tflite-int4-weight"
    assert page.choose_focus(replace(summary, chosen="onnx-fp32")) == "onnx-int8-static", "the reference beside itself says nothing"
    found = {c.what: c for c in changes.list_changes(summary.variants["onnx-fp32"], summary.variants["onnx-int8-static"], PRIMARY_METRIC)}
    assert found["size, MB"].change == "−74.6 %" and found["latency p50, ms"].change == "−69.0 [−69.4, −68.6] %"
    assert [title for title, *_ in page.make_cards(summary)] == ["fastest", "smallest", "least memory"]


def test_a_page_whose_reference_is_chosen_compares_another_variant(project):
    text = render_page(project, budget=Budget("strict", accuracy_drop_points=0.0, size_bytes=45_000_000), rows=(FIVE[0], FIVE[1], FIVE[3]))
    assert "<b>onnx-fp32</b> is chosen: the reference itself, so nothing is gained: no other variant is shown to keep every limit" in text
    assert "From onnx-fp32 to onnx-int8-static, the fastest of the others." in text
    assert "Recall of onnx-int8-static, the fastest of the others, beside onnx-fp32" in text
    assert "Nearest miss: onnx-int8-static" in text


def test_at_least_is_rounded_down(project):
    fabricate(project)
    summary = write_report()
    name = "onnx-int8-static"
    for highest, said in ((0.917, "at least 1.09 times"), (0.341, "at least 2.9 times")):
        row = replace(summary.variants[name], latency=replace(summary.variants[name].latency, ratio_ci95=(0.3, highest)))
        (card,) = [
            figure for title, _, figure in page.make_cards(replace(summary, variants={**summary.variants, name: row})) if title == "fastest"
        ]
        assert card.startswith(said)


def test_the_page_and_the_terminal_name_the_same_variants(project):
    """A small model has its size in digits that are not 0, and the least memory is that of the whole process in both."""
    fabricate(project)
    summary = write_report()
    name = "onnx-int8-static"
    small = replace(summary.variants[name], file=replace(summary.variants[name].file, size_bytes=7_730))
    summary = replace(summary, variants=summary.variants | {name: small})
    roles = answer.find_roles(summary)
    cards = {title: (who, figure) for title, who, figure in page.make_cards(summary)}
    assert {role: cards[role][0] for role in (answer.SMALLEST, answer.LEAST_MEMORY)} == {
        role: roles[role][0] for role in (answer.SMALLEST, answer.LEAST_MEMORY)
    }
    assert "0.0077 MB instead of" in cards[answer.SMALLEST][1] and "at the peak" in cards[answer.LEAST_MEMORY][1]


DRIVE = """<script>
for (const [id, value] of [["across", "size, MB"], ["up", "accuracy change, points"]]) {
  document.getElementById(id).value = value; document.getElementById(id).dispatchEvent(new Event("change"));
}
document.getElementById("bars").click();
document.querySelectorAll("#variants thead th")[3].click();
document.querySelector('.spot[data-name="onnx-int8-static"]').dispatchEvent(new Event("mouseenter"));
</script></body>"""


def browse(path, *options):
    """What a browser without a network makes of the page: its DOM on stdout."""
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--proxy-server=127.0.0.1:9",
        "--dump-dom",
    ]
    return subprocess.run([*command, *options, f"file://{path}"], capture_output=True, text=True, timeout=120)


NEEDS_CHROMIUM = pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed: apt-get install chromium")
MEASURE = """<script>
const box = document.getElementById("variants").parentElement;
document.body.dataset.wide = `${box.scrollWidth} of ${box.clientWidth}; dashed ${!document.getElementById("dashed").hidden}`;
</script></body>"""


@pytest.mark.system
@NEEDS_CHROMIUM
def test_the_table_fits_a_page_of_1080_pixels_with_its_intervals(project):
    rows = [FIVE[0], replace(FIVE[1], name="openvino-int8-static")]
    text = render_page(project, rows, budget=Budget("strict", accuracy_drop_points=0.0))
    (project / PAGE).write_text(text.replace("</body>", MEASURE))
    found = re.search(r'data-wide="(\d+) of (\d+); dashed (\w+)"', browse(project / PAGE, "--window-size=1080,2000").stdout)
    assert found and found[1] == found[2] and "(reference, chosen)" in text
    assert found[3] == "true", "two variants of which neither is better in both figures"


@pytest.mark.system
@NEEDS_CHROMIUM
def test_the_front_is_drawn_and_obeys_in_a_real_browser_without_network(project):
    text = render_page(project)
    (project / PAGE).write_text(text.replace("</body>", DRIVE))
    done = browse(project / PAGE)
    assert "CONSOLE" not in done.stderr, done.stderr
    drawn = done.stdout.split('id="plot"')[1].split("</section>")[0]
    assert drawn.count('class="spot') == 4 and "size, MB (log)" in drawn and "accuracy change, points" in drawn
    assert "onnx-int8-static\nfaster within this visit (clean)" in drawn  # the tip
    rows = re.findall(r'<tr data-name="([^"]+)"', done.stdout)
    assert rows[0] == "tflite-int4-weight" and rows[-1] == "openvino-int8-static"  # by size, the unknown last
