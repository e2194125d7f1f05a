"""Text to token ids: a WordPiece tokenizer, trained on the training split or supplied by the user.

Devices tokenize with models/data/tokenizer.json and the package `tokenizers`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.artifact import Port
from edgewise.config.settings import option
from edgewise.data.common import DataSettings, import_or_raise, versions
from edgewise.errors import DataError

PAD, UNKNOWN, FIRST, LAST, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # as in BERT; [PAD] is 0
FILE = "tokenizer.json"
Tokenizer = Any  # tokenizers.Tokenizer, imported late
PRIVATE_USE = 0xF0000  # first code point of the Unicode planes for private use


@dataclass(frozen=True, kw_only=True)
class TextSettings(DataSettings):
    """Settings that every data set of text has."""

    length: int = option(64, "tokens per sentence: longer ones are truncated, shorter ones padded", low=4, high=4096)
    vocab_size: int = option(8000, "size of the vocabulary that is learned from the training split", low=100, high=1_000_000)
    lowercase: bool = option(True)
    tokenizer: str | None = option(None, "tokenizer.json or vocab.txt of your model; null: train one on the training split")


class WordPieceEncoder:
    """Stores inputs/input_ids.npy and inputs/attention_mask.npy, int64 [n, length]."""

    def __init__(self, settings: TextSettings, folder: Path):
        self.settings, self.folder = settings, folder
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.texts.append(text)

    def finish(self, train: np.ndarray) -> Mapping[str, Any]:
        tokenizer = (
            load_tokenizer(self.settings) if self.settings.tokenizer else train_tokenizer([self.texts[i] for i in train], self.settings)
        )
        pad_id = set_length(tokenizer, self.settings.length)
        tokenizer.save(str(self.folder / FILE))
        encoded = tokenizer.encode_batch(self.texts)
        (self.folder / "inputs").mkdir(exist_ok=True)
        np.save(self.folder / "inputs/input_ids.npy", np.array([e.ids for e in encoded], np.int64))
        np.save(self.folder / "inputs/attention_mask.npy", np.array([e.attention_mask for e in encoded], np.int64))
        shape = (None, self.settings.length)
        return {
            "inputs": tuple(Port(name, shape, "int64", None, name) for name in ("input_ids", "attention_mask")),
            "preprocessing": {
                "kind": "text",
                "tokenizer": FILE,
                "length": self.settings.length,
                "vocab_size": tokenizer.get_vocab_size(),
                "pad_id": pad_id,
            },
            "tools": versions("numpy", "tokenizers"),
        }


def make_tokenizer(vocabulary: Mapping[str, int] | None, lowercase: bool) -> Tokenizer:
    """A WordPiece tokenizer that splits text into words as BERT does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary or {}), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def train_tokenizer(texts: list[str], settings: TextSettings) -> Tokenizer:
    """A tokenizer with the vocabulary of a repeatable byte-pair training.

    `tokenizers`' own WordPieceTrainer breaks ties by the order of a randomly seeded hash table, so each process gets another vocabulary.
    Only the "##" prefix of inner letters causes ties; here inner letters are moved to a separate alphabet instead.
    """
    tokenizers = import_or_raise("tokenizers", "train")
    from tokenizers import models, pre_tokenizers, trainers

    split = make_tokenizer(None, settings.lowercase)
    words = [split.pre_tokenizer.pre_tokenize_str(split.normalizer.normalize_str(text)) for text in texts]
    pairs = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN))
    pairs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=settings.vocab_size, special_tokens=list(SPECIAL), show_progress=False)
    pairs.train_from_iterator((" ".join(word[0] + to_private_use(word[1:]) for word, _ in line) for line in words), trainer)
    return make_tokenizer({to_wordpiece(token): number for token, number in pairs.get_vocab().items()}, settings.lowercase)


def to_private_use(letters: str) -> str:
    """Move letters to the private use planes, which end at 0x10FFFF."""
    return "".join(chr(ord(letter) + PRIVATE_USE) if ord(letter) + PRIVATE_USE <= 0x10FFFF else letter for letter in letters)


def to_wordpiece(token: str) -> str:
    """Move letters back; a token that began with an inner letter gets the prefix ##."""
    letters = "".join(chr(ord(letter) - PRIVATE_USE) if ord(letter) >= PRIVATE_USE else letter for letter in token)
    return f"##{letters}" if ord(token[0]) >= PRIVATE_USE else letters


def load_tokenizer(settings: TextSettings) -> Tokenizer:
    """The user's tokenizer.json, as `tokenizers` and transformers save it, or vocab.txt: one token per line, the line number is the id."""
    tokenizers = import_or_raise("tokenizers", "train")
    path = Path(settings.tokenizer or "").expanduser()
    try:
        if path.suffix == ".json":
            return tokenizers.Tokenizer.from_file(str(path))
        return make_tokenizer(
            {token: i for i, token in enumerate(path.read_text(encoding="utf-8").split("\n")) if token}, settings.lowercase
        )
    except Exception as error:  # tokenizers raises plain Exception for whatever it cannot read
        raise DataError(f"data.tokenizer: {path}: {error}; give a tokenizer.json, or a vocab.txt with one token per line") from None


def set_length(tokenizer: Tokenizer, length: int) -> int:
    """Make the tokenizer truncate and pad to `length`, and add [CLS] and [SEP] unless it adds its own. Returns the id of [PAD]."""
    from tokenizers.processors import TemplateProcessing

    ids = {token: number for token in (PAD, UNKNOWN, FIRST, LAST) if (number := tokenizer.token_to_id(token)) is not None}
    missing = {PAD, UNKNOWN, FIRST, LAST} - set(ids)
    if missing:
        raise DataError(
            f"data.tokenizer: its vocabulary lacks {', '.join(sorted(missing))}; give a WordPiece vocabulary as BERT's, which has them"
        )
    if tokenizer.post_processor is None:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{FIRST} $A {LAST}", special_tokens=[(token, ids[token]) for token in (FIRST, LAST)]
        )
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=ids[PAD], pad_token=PAD)
    return int(ids[PAD])
