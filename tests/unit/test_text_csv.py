"""data/text_csv: files as spreadsheets and data bases write them. Oracle: the csv module's own writer."""

import csv

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.config.settings import build
from edgewise.data import text_csv
from edgewise.errors import ConfigError, DataError
from tests.unit.test_prepare_data import plugin, prepare

ROWS = [
    (1, "good, really", "the \"best\" part", "4"),
    (2, "two\nlines", "of; text", "1"),
    (3, "naïve | café", "tab\there", "4"),
    (4, " spaces ", "", "2"),
]  # fmt: skip
HEADER = ("id", "title", "body", "stars")


def write(path, rows=ROWS, header=HEADER, **rules):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, **rules).writerows([*([header] if header else []), *rows])
    return path


def read(path, **given):
    return list(text_csv.items(build(text_csv.Settings, {"path": str(path), **given}, "data")))


BOTH = {"text_columns": ["title", "body"], "label_column": "stars"}
EXPECTED = [
    ('good, really the "best" part', "4"), ("two\nlines of; text", "1"), ("naïve | café tab\there", "4"), ("spaces", "2"),
]  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_fields_come_back_whatever_the_delimiter(tmp_path, delimiter, quoting):
    path = write(tmp_path / "set.csv", delimiter=delimiter, quoting=quoting)
    found = read(path, **BOTH, **({"delimiter": "^"} if delimiter == "^" else {}))
    assert [(item.value, item.label) for item in found] == EXPECTED
    assert [item.name for item in found] == ["set.csv:2", "set.csv:4", "set.csv:5", "set.csv:6"]


def test_columns_by_number_without_a_header(tmp_path):
    path = write(tmp_path / "set.csv", header=None)
    found = read(path, header=False, text_columns=[2, 1], label_column=0, separator=" // ", max_unreadable_share=0.5)
    assert [(item.value, item.label) for item in found][:2] == [('the "best" part // good, really', "1"), ("of; text // two\nlines", "2")]
    assert found[3].value == "spaces"


def test_quotes_that_are_part_of_the_text(tmp_path):
    (tmp_path / "set.csv").write_text('text;label\n"so called" good;1\nfive" pipe;0\n')
    assert [item.value for item in read(tmp_path / "set.csv", quoted=False)] == ['"so called" good', 'five" pipe']
    with pytest.raises(DataError, match=r"set.csv, line 2: .*; fix the quotes, or set data.quoted=false"):
        read(tmp_path / "set.csv")


def test_names_of_labels_in_the_order_of_what_they_stand_for(tmp_path):
    rows = [(i, f"text {i}", "", str(i % 3 + 9)) for i in range(60)]
    path = write(tmp_path / "set.csv", rows)
    names = {"9": "world", "10": "sports", "11": "business", "12": "science"}
    manifest = prepare(plugin("text_csv", path=str(path), **BOTH, names=names, length=8, vocab_size=120), tmp_path)
    samples = Samples.open(tmp_path / "models/data")
    assert manifest.labels == ("world", "sports", "business", "science")
    assert np.array_equal(samples.targets(np.arange(60)), np.arange(60) % 3)
    with pytest.raises(DataError, match=r"data.names: set.csv:4: no name for the label '11'; allowed: 10, 9"):
        read(path, **BOTH, names={"9": "world", "10": "sports"})


@pytest.mark.parametrize("given", [{"label_column": "none"}, {"label_column": None}, {"targets": "none", "label_column": "absent"}])
def test_texts_without_labels(tmp_path, given):
    path = write(tmp_path / "set.csv", [(i, f"text {i}", "", "") for i in range(40)])
    data = plugin("text_csv", path=str(path), length=8, vocab_size=120, **{**given, "text_columns": ["title"]})
    assert text_csv.probe(build(text_csv.Settings, data.settings, "data"))["targets"] == "none"
    manifest = prepare(data, tmp_path)
    assert manifest.details["targets"] == "none" and manifest.labels == () and manifest.details["samples"] == 40


def test_a_folder_with_splits(tmp_path):
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.csv")
    assert [item.split for item in read(tmp_path, **BOTH)] == ["validation"] * 4 + ["test"] * 4 + [None] * 4


def test_records_without_text_or_label_are_counted_and_named(tmp_path):
    path = write(tmp_path / "set.csv", [*ROWS, (5, "", "", "1"), (6, "a", "b", " "), (7,)])
    reasons = {item.name: item.reason for item in read(path, **BOTH, max_unreadable_share=0.5)[4:]}
    assert reasons == {"set.csv:7": "no text", "set.csv:8": "no label", "set.csv:9": "1 columns"}
    with pytest.raises(DataError, match=r"3 of 7 records cannot be read \(set.csv:7: no text; .* raise data.max_unreadable_share above"):
        read(path, **BOTH)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"text_columns": ["titel"], "label_column": "stars"},
            DataError,
            "has no column 'titel'; did you mean 'title'\\? allowed: body, id",
        ),
        ({"text_columns": ["title"]}, DataError, "data.label_column: .* has no column 'label'; allowed: body, id, stars, title"),
        ({**BOTH, "header": False}, DataError, "data.text_columns: 'title', but data.header is false; give the column's number"),
        ({**BOTH, "delimiter": "tab"}, ConfigError, "data.delimiter: 'tab' must be one character, or auto"),
        ({**BOTH, "delimiter": '"'}, ConfigError, "must be one character, or auto; no quote and no line break"),
        ({**BOTH, "delimiter": "\n"}, ConfigError, "must be one character, or auto; no quote and no line break"),
        ({"text_columns": []}, ConfigError, "data.text_columns: empty; name one column or more"),
        ({"text_columns": [-1]}, ConfigError, "-1 must be the name of a column, or its number from 0"),
        ({"text_columns": [1], "label_column": True}, ConfigError, "True must be the name of a column"),
    ],
)
def test_wrong_settings(tmp_path, given, error, message):
    path = write(tmp_path / "set.csv")
    with pytest.raises(error, match=message):
        read(path, **given)


@pytest.mark.parametrize(("content", "message"), [("", "empty; give a CSV file"), ("caf\xe9", "is not UTF-8 at byte 3")])
def test_files_that_are_no_tables(tmp_path, content, message):
    (tmp_path / "set.csv").write_bytes(content.encode("latin1"))
    with pytest.raises(DataError, match=message):
        read(tmp_path / "set.csv")
