"""data/text_tsv: sentences to ids, by a tokenizer that is learned from the training split alone. Oracle: transformers' BertTokenizer."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.config.settings import build
from edgewise.data import text_tsv
from edgewise.errors import DataError
from tests.conftest import ROOT
from tests.unit.test_prepare_data import plugin, prepare

WORDS = ["the", "part", "is", "good", "bad", "broken", "scratched", "dull", "and", "not", "very", "line", "ran", "café", "naïve"]


def write(path: Path, rows: int, seed: int = 0, extra: str = "") -> Path:
    generator = np.random.default_rng(seed)
    lines = [f"{' '.join(generator.choice(WORDS, generator.integers(3, 12)))} {seed}{i}\t{i % 2}" for i in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n" + extra, encoding="utf-8")
    return path


def text(tmp_path: Path, path: Path, **settings):
    return prepare(plugin("text_tsv", path=str(path), length=16, vocab_size=120, **settings), tmp_path)


@pytest.mark.framework
def test_ids_are_those_of_berts_tokenizer(tmp_path):
    from transformers import BertTokenizerFast

    path = write(tmp_path / "texts.tsv", 200)
    manifest = text(tmp_path, path)
    theirs = BertTokenizerFast(tokenizer_file=str(tmp_path / "models/data/tokenizer.json"))
    assert manifest.preprocessing == {"kind": "text", "tokenizer": "tokenizer.json", "length": 16, "vocab_size": 120, "pad_id": 0}
    sentences = [line.split("\t")[0] for line in path.read_text().splitlines()]
    expected = theirs(sentences, padding="max_length", truncation=True, max_length=16, return_tensors="np")
    samples = Samples.open(tmp_path / "models/data")
    feeds = samples.feeds(np.arange(200))
    assert [t.name for t in manifest.inputs] == list(feeds) == ["input_ids", "attention_mask"]
    for name, array in feeds.items():
        assert array.dtype == np.int64 and np.array_equal(array, expected[name]), name
    assert samples.labels == ("0", "1") and np.array_equal(samples.targets(np.arange(200)), np.arange(200) % 2)


def test_the_vocabulary_comes_from_the_training_split(tmp_path):
    write(tmp_path / "set/train.tsv", 60)
    write(tmp_path / "set/dev.tsv", 20, 1)
    (tmp_path / "set/test.tsv").write_text("ξένος ξένος\t0\nξένος part\t1\n", encoding="utf-8")
    manifest = text(tmp_path, tmp_path / "set")
    vocabulary = json.loads((tmp_path / "models/data/tokenizer.json").read_text())["model"]["vocab"]
    assert "ξ" not in vocabulary and any(token.startswith("##") for token in vocabulary) and "good" in vocabulary
    assert {name: sum(c.values()) for name, c in manifest.details["counts"].items()} == {
        "train": 57, "validation": 20, "calibration": 3, "test": 2,
    }  # fmt: skip


def test_every_process_learns_the_same_tokenizer(tmp_path):
    path = write(tmp_path / "texts.tsv", 200)
    code = (
        "import numpy as np, pathlib, sys; from edgewise.data import text_tsv; from edgewise.data.wordpiece import WordPieceEncoder\n"
        "e = WordPieceEncoder(text_tsv.Settings(path=sys.argv[1], vocab_size=150), pathlib.Path(sys.argv[2]))\n"
        "[e.add(i.value) for i in text_tsv.items(e.settings)]; e.finish(np.arange(200))"
    )
    hashes = set()
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / name)], cwd=ROOT, check=True, timeout=120)
        hashes.add(hashlib.sha256((tmp_path / name / "tokenizer.json").read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.mark.framework
@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_a_tokenizer_that_the_user_brings(tmp_path, name):
    from transformers import BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "part", "good", "##s", "is"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    theirs = BertTokenizerFast(vocab={token: i for i, token in enumerate(vocabulary)})
    theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = write(tmp_path / "texts.tsv", 40)
    manifest = text(tmp_path, path, tokenizer=str(tmp_path / name))
    sentences = [line.split("\t")[0] for line in path.read_text().splitlines()]
    expected = theirs(sentences, padding="max_length", truncation=True, max_length=16, return_tensors="np")["input_ids"]
    assert manifest.preprocessing["vocab_size"] == 10
    assert np.array_equal(Samples.open(tmp_path / "models/data").feeds(np.arange(40))["input_ids"], expected)


def test_lines_without_text_or_label_are_counted_and_named(tmp_path):
    path = write(tmp_path / "texts.tsv", 200, extra="no label here\n\t1\nlabel is blank\t \n")
    reasons = {"texts.tsv:201": "1 columns", "texts.tsv:202": "no text", "texts.tsv:203": "no label"}
    assert text(tmp_path, path, max_unreadable_share=0.02).details["unreadable"] == {"count": 3, "named": reasons}
    with pytest.raises(DataError, match=r"3 of 203 lines cannot be read \(texts.tsv:201: 1 columns; .* raise data.max_unreadable_share"):
        text(tmp_path, path)


def test_columns_header_and_windows_line_ends(tmp_path):
    path = tmp_path / "texts.tsv"
    path.write_bytes("\ufeffid\tlabel\ttext\r\n1\tyes\tgood part\r\n2\tno\tbad\r\n".encode())
    found = list(text_tsv.items(build(text_tsv.Settings, {"path": str(path), "header": True, "text_column": 2, "label_column": 1}, "data")))
    assert [(i.name, i.label, i.value) for i in found] == [("texts.tsv:2", "yes", "good part"), ("texts.tsv:3", "no", "bad")]


def test_the_probe_follows_text_and_tokenizer(tmp_path):
    path, vocabulary = write(tmp_path / "texts.tsv", 20), write(tmp_path / "vocab.txt", 3)

    def digest(**given):
        return text_tsv.probe(build(text_tsv.Settings, {"path": str(path), **given}, "data"))["digest"]

    seen = [digest(), digest(), digest(tokenizer=str(vocabulary))]
    write(path, 20, 1)
    seen.append(digest())
    assert seen[0] == seen[1] and len(set(seen)) == 3


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (lambda p: p / "absent.tsv", {}, "No such file or directory; give a file of lines with text, tab, label"),
        (lambda p: p, {}, "has no train.tsv"),
        (lambda p: (p / "x.tsv").write_bytes(b"caf\xe9\t1\n") and p / "x.tsv", {}, "is not UTF-8 at byte 3; convert it"),
        (lambda p: write(p / "x.tsv", 40), {"tokenizer": "absent.json"}, r"data.tokenizer: absent.json: .*; give a tokenizer.json"),
        (lambda p: write(p / "x.tsv", 40), {"tokenizer": "{p}/x.tsv"}, r"data.tokenizer: its vocabulary lacks \[CLS\], \[PAD\]"),
        (lambda p: (p / "x.tsv").write_text("a\t1\nb\t1\nc\t1\nd\t1\n") and p / "x.tsv", {}, "4 samples of 1 class 1; two classes"),
    ],
)
def test_wrong_texts(tmp_path, make, given, message):
    path = make(tmp_path)
    with pytest.raises(DataError, match=message):
        text(tmp_path, path, **{key: value.format(p=tmp_path) for key, value in given.items()})


def test_sst2_keeps_its_splits(shared_data, tmp_path):
    manifest = prepare(plugin("text_tsv", path=str(shared_data / "sst2")), tmp_path)
    sizes = {name: sum(counts.values()) for name, counts in manifest.details["counts"].items()}
    assert sizes["test"] == 1821 and sizes["validation"] == 872 and sizes["train"] + sizes["calibration"] == 6920
