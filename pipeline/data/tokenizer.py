"""The tokenizer: byte-level BPE trained on the training split, or any tokenizer.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import UserError
from pipeline.base.files import is_file, read_json
from pipeline.data.archives import one_line
from pipeline.study.schema import Tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING = "<|padding|>"
TRAINING_BYTES = 2**30
"""Text a BPE is trained on; of a larger corpus, evenly spaced documents of about this size together."""

MOST_TOKENS = 2**31 - 64
"""Tokens of four bytes, and a table that is a multiple of 64."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PADDING_NAMES = (PADDING, "<pad>", "<|pad|>", "[PAD]")


def model_vocabulary(tokenize: Tokenize) -> int:
    """Tokens of the models' tables: the vocabulary rounded up to a multiple of 64. Known before anything has run."""
    if tokenize.tokenizer is None or on_the_hub(tokenize.tokenizer):
        return padded(tokenize.vocabulary)
    path = Path(tokenize.tokenizer)
    return padded(_vocabulary(read_tokenizer_json(path), path))


def on_the_hub(tokenizer: str) -> bool:
    """Whether it is a model's name on the Hugging Face hub (``ORGANISATION/MODEL``) rather than a file."""
    return bool(_HUB_NAME.fullmatch(tokenizer)) and not tokenizer.endswith(".json") and not is_file(tokenizer)


def hub_tokenizer(name: str, vocabulary: int) -> Tokenizer:
    """A model's tokenizer from the hub. Raises :class:`UserError` unless it has the ``vocabulary`` that was stated."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_pretrained(name)
    except Exception as error:  # tokenizers raises plain Exception, the hub's client its own
        raise UserError(f"tokenize.tokenizer: {name!r} could not be fetched from the hub ({one_line(error)})") from None
    if padded(vocabulary_size(tokenizer)) != padded(vocabulary):
        raise UserError(f"tokenize.vocabulary: {vocabulary} is wrong; {name} has {vocabulary_size(tokenizer)} tokens")
    return _plain(tokenizer)


def padded(vocabulary: int) -> int:
    """GPT-NeoX's 50,277 tokens become Pythia's 50,304."""
    return -(-vocabulary // 64) * 64


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a token or checkpoint folder. Text is never mistaken for a special token, however it reads."""
    return open_tokenizer(Path(folder) / "tokenizer.json")


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json``, without truncation or padding. Raises :class:`UserError`."""
    from tokenizers import Tokenizer

    read_tokenizer_json(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise UserError(f"{path}: not a tokenizer of the tokenizers library ({one_line(error)})") from None
    return _plain(tokenizer)


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def with_plain_end_of_text(tokenizer: Tokenizer, end_of_text: str) -> Tokenizer:
    """The tokenizer, for which text that reads like end of text is text, even where its file has no special token."""
    from tokenizers import Tokenizer

    settings = json.loads(tokenizer.to_str())
    found = [token for token in settings["added_tokens"] if token["content"] == end_of_text and not token["special"]]
    if not found:
        return tokenizer
    found[0]["special"] = True
    return _plain(Tokenizer.from_str(json.dumps(settings)))


def train_tokenizer(texts: Iterable[str], vocabulary: int, end_of_text: str) -> Tokenizer:
    """Byte-level BPE in the manner of GPT-2: lossless; end of text is token 0, padding token 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[end_of_text, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def training_sample(texts: Iterator[str], total_bytes: int) -> Iterator[str]:
    """Evenly spaced documents, so that training a tokenizer takes bounded time and memory."""
    return islice(texts, 0, None, -(-total_bytes // TRAINING_BYTES) or 1)


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest token id."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def end_of_text_id(tokenizer: Tokenizer, name: str) -> int:
    """The id of the token of that name. Raises :class:`UserError` where the tokenizer lacks it."""
    token = tokenizer.token_to_id(name)
    if token is None:
        raise UserError(f"tokenize.end_of_text: {name!r} is not a token of the tokenizer; name its own")
    return int(token)


def padding_id(tokenizer: Tokenizer, end_of_text: int) -> int:
    """The tokenizer's own padding token, or end of text where it has none (as the published training runs do)."""
    found = (tokenizer.token_to_id(name) for name in _PADDING_NAMES)
    return next((int(token) for token in found if token is not None), end_of_text)


def read_tokenizer_json(path: Path) -> dict[str, Any]:
    """The file's values, without the tokenizers library. Raises :class:`UserError` where it is none."""
    if not is_file(path):
        raise UserError(f"tokenize.tokenizer: {str(path)!r} does not exist; give the path of a tokenizer.json, or null")
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict) or "vocab" not in values["model"]:
        raise UserError(f"tokenize.tokenizer: {path} is not a tokenizer.json of the tokenizers library")
    return values


def _vocabulary(values: dict[str, Any], path: Path) -> int:
    vocabulary = values["model"]["vocab"]
    try:
        largest = len(vocabulary) - 1 if isinstance(vocabulary, list) else max(vocabulary.values(), default=-1)
        size = max([largest, *(token["id"] for token in values.get("added_tokens") or [])]) + 1
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"tokenize.tokenizer: {path} is damaged: its tokens have no ids ({error})") from None
    if type(size) is not int or not 0 < size <= MOST_TOKENS:
        raise UserError(f"tokenize.tokenizer: {path} is damaged: its largest token id is {size - 1}")
    return size
