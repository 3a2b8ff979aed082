"""A trained model with its tokenizer, on the device and in the dtype to run it in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import device as devices
from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.data import load_tokenizer
from pipeline.models.checkpoint import load

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pipeline.models import LanguageModel


@dataclass(frozen=True)
class Opened:
    """A checkpoint ``folder``; ``record`` is its ``config.json``, ``end_of_text_token`` the text of that token."""

    folder: Path
    model: LanguageModel
    device: str
    precision: str
    record: dict[str, Any]
    end_of_text_token: str

    @property
    def padded(self) -> bool:
        """Whether a block model saw random-length padding in training."""
        return bool(self.record.get("pretrain", {}).get("padding", True))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Read when it is first needed: a benchmark needs none."""
        return load_tokenizer(self.folder)

    @cached_property
    def end_of_text(self) -> int:
        """The id that ends a text. Raises :class:`UserError` where the tokenizer has no such token."""
        token = self.tokenizer.token_to_id(self.end_of_text_token)
        if token is None:
            path = self.folder / "tokenizer.json"
            raise UserError(f"end_of_text: {self.end_of_text_token!r} is not a token of {path}; name its own")
        return int(token)


def open_cell(name: str, device: str, precision: str = "auto", end_of_text: str = "<|endoftext|>") -> Opened:
    """A cell's checkpoint. Raises :class:`UserError` that names the stage to run where there is none."""
    folder = paths.checkpoint(name)
    if not (folder / "model.safetensors").is_file():
        raise UserError(f"{folder}: no trained model; run `dvc repro` (stage pretrain) first")
    return open_checkpoint(folder, device, precision, end_of_text)


def open_checkpoint(folder: Path, device: str, precision: str = "auto", end_of_text: str = "<|endoftext|>") -> Opened:
    """Any checkpoint folder. ``precision`` is ``auto``, ``fp32`` or ``bf16``. Raises :class:`UserError`."""
    arithmetic = devices.precision(precision, device)
    model, record = load(folder, device, devices.dtype(arithmetic))
    return Opened(folder, model, device, arithmetic, record, end_of_text)


def require_study_tokenizer(opened: Opened) -> None:
    """Raise :class:`UserError` unless the model reads token ids as data/tokens means them."""
    own, study = opened.folder / "tokenizer.json", paths.TOKENS / "tokenizer.json"
    if own.read_bytes() == study.read_bytes():
        return
    vocabulary = opened.tokenizer.get_vocab(with_added_tokens=True)
    if vocabulary != load_tokenizer(paths.TOKENS).get_vocab(with_added_tokens=True):
        raise UserError(f"{own}: not the vocabulary of {study}; set tokenize.tokenizer to it to compare this model")
