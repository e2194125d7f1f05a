"""Text to token ids: a WordPiece tokenizer, learned from the training split or brought by the user.

models/data/tokenizer.json is what a device needs to do the same (package `tokenizers`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.artifact import Tensor
from edgewise.config.settings import option
from edgewise.data.common import DataSettings, need, versions
from edgewise.errors import DataError

PAD, UNKNOWN, FIRST, LAST, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # as BERT has them, [PAD] is 0
FILE = "tokenizer.json"
Tokenizer = Any  # tokenizers.Tokenizer, imported late
PRIVATE = 0xF0000  # the first code point of the planes for private use


@dataclass(frozen=True, kw_only=True)
class TextSettings(DataSettings):
    """What every data set of text has."""

    length: int = option(64, "tokens of a sentence: longer ones are cut, shorter ones padded", low=4, high=4096)
    vocab_size: int = option(8000, "tokens that are learned from the training split", low=100, high=1_000_000)
    lowercase: bool = option(True)
    tokenizer: str | None = option(None, "tokenizer.json or vocab.txt of your model; null: learned from the training split")


class WordPieceEncoder:
    """Stores inputs/input_ids.npy and inputs/attention_mask.npy, int64 [n, length]."""

    def __init__(self, settings: TextSettings, folder: Path):
        self.settings, self.folder = settings, folder
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.texts.append(text)

    def finish(self, train: np.ndarray) -> Mapping[str, Any]:
        tokenizer = brought(self.settings) if self.settings.tokenizer else learned([self.texts[i] for i in train], self.settings)
        pad_id = frame(tokenizer, self.settings.length)
        tokenizer.save(str(self.folder / FILE))
        encoded = tokenizer.encode_batch(self.texts)
        (self.folder / "inputs").mkdir(exist_ok=True)
        np.save(self.folder / "inputs/input_ids.npy", np.array([e.ids for e in encoded], np.int64))
        np.save(self.folder / "inputs/attention_mask.npy", np.array([e.attention_mask for e in encoded], np.int64))
        shape = (None, self.settings.length)
        return {
            "inputs": tuple(Tensor(name, shape, "int64", None, name) for name in ("input_ids", "attention_mask")),
            "preprocessing": {
                "kind": "text",
                "tokenizer": FILE,
                "length": self.settings.length,
                "vocab_size": tokenizer.get_vocab_size(),
                "pad_id": pad_id,
            },
            "tools": versions("numpy", "tokenizers"),
        }


def blank(vocabulary: Mapping[str, int] | None, lowercase: bool) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary or {}), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def learned(texts: list[str], settings: TextSettings) -> Tokenizer:
    """WordPieceTrainer learns by byte-pair merges too, but breaks ties by the order of a randomly seeded hash table: another vocabulary
    in each process. Ties come from the "##" of inner letters only, so inner letters are learned as letters of an alphabet of their own."""
    tokenizers = need("tokenizers", "train")
    from tokenizers import models, pre_tokenizers, trainers

    split = blank(None, settings.lowercase)
    words = [split.pre_tokenizer.pre_tokenize_str(split.normalizer.normalize_str(text)) for text in texts]
    pairs = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN))
    pairs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=settings.vocab_size, special_tokens=list(SPECIAL), show_progress=False)
    pairs.train_from_iterator((" ".join(word[0] + inner(word[1:]) for word, _ in line) for line in words), trainer)
    return blank({piece(token): number for token, number in pairs.get_vocab().items()}, settings.lowercase)


def inner(letters: str) -> str:
    """Letters moved into the private use planes, which end at 0x10FFFF."""
    return "".join(chr(ord(letter) + PRIVATE) if ord(letter) + PRIVATE <= 0x10FFFF else letter for letter in letters)


def piece(token: str) -> str:
    letters = "".join(chr(ord(letter) - PRIVATE) if ord(letter) >= PRIVATE else letter for letter in token)
    return f"##{letters}" if ord(token[0]) >= PRIVATE else letters


def brought(settings: TextSettings) -> Tokenizer:
    """tokenizer.json as `tokenizers` and transformers save it, or vocab.txt: one token a line, its number is its id."""
    tokenizers = need("tokenizers", "train")
    path = Path(settings.tokenizer or "").expanduser()
    try:
        if path.suffix == ".json":
            return tokenizers.Tokenizer.from_file(str(path))
        return blank({token: i for i, token in enumerate(path.read_text(encoding="utf-8").split("\n")) if token}, settings.lowercase)
    except Exception as error:  # tokenizers raises plain Exception for whatever it cannot read
        raise DataError(f"data.tokenizer: {path}: {error}; give a tokenizer.json, or a vocab.txt with one token a line") from None


def frame(tokenizer: Tokenizer, length: int) -> int:
    """Cut and pad to `length`; [CLS] and [SEP] around the text where the tokenizer does not add its own. Returns the id of padding."""
    from tokenizers.processors import TemplateProcessing

    ids = {token: number for token in (PAD, UNKNOWN, FIRST, LAST) if (number := tokenizer.token_to_id(token)) is not None}
    missing = {PAD, UNKNOWN, FIRST, LAST} - set(ids)
    if missing:
        raise DataError(
            f"data.tokenizer: its vocabulary lacks {', '.join(sorted(missing))}; a WordPiece vocabulary of the BERT kind has them"
        )
    if tokenizer.post_processor is None:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{FIRST} $A {LAST}", special_tokens=[(token, ids[token]) for token in (FIRST, LAST)]
        )
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=ids[PAD], pad_token=PAD)
    return int(ids[PAD])
