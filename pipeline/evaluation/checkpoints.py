"""A trained model with its tokenizer, on the device and in the dtype to evaluate it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.data import Manifest, load_tokenizer
from pipeline.models.checkpoint import load

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pipeline.models import LanguageModel


@dataclass(frozen=True)
class Opened:
    """``record`` is the checkpoint's ``config.json``."""

    model: LanguageModel
    tokenizer: Tokenizer
    end_of_text: int
    device: str
    precision: str
    record: dict[str, Any]

    @property
    def padded(self) -> bool:
        """Whether a block model saw random-length padding in training."""
        return bool(self.record.get("pretrain", {}).get("padding", True))


def open_cell(name: str, device: str | None = None, precision: str = "auto") -> Opened:
    """A cell's checkpoint. Raises :class:`UserError` that names the stage to run where there is none."""
    folder = paths.checkpoint(name)
    if not (folder / "model.safetensors").is_file():
        raise UserError(f"{folder}: no trained model; run `dvc repro` (stage pretrain) first")
    opened = _open(folder, Manifest.read(paths.TOKENS).end_of_text, device, precision)
    _check_tokenizer(folder, opened)
    return opened


def open_checkpoint(folder: Path, device: str | None = None, end_of_text: str = "<|endoftext|>") -> Opened:
    """Any checkpoint folder, whose tokenizer ends texts with ``end_of_text``."""
    token = load_tokenizer(folder).token_to_id(end_of_text)
    if token is None:
        raise UserError(f"end_of_text: {end_of_text!r} is not a token of {folder / 'tokenizer.json'}")
    return _open(folder, token, device, "auto")


def _check_tokenizer(folder: Path, opened: Opened) -> None:
    """Raise :class:`UserError` unless the model reads token ids as data/tokens means them."""
    own, study = folder / "tokenizer.json", paths.TOKENS / "tokenizer.json"
    if own.read_bytes() == study.read_bytes():
        return
    vocabulary = opened.tokenizer.get_vocab(with_added_tokens=True)
    if vocabulary != load_tokenizer(paths.TOKENS).get_vocab(with_added_tokens=True):
        raise UserError(f"{own}: not the vocabulary of {study}; set tokenize.tokenizer to it to compare this model")


def _open(folder: Path, end_of_text: int, device: str | None, precision: str) -> Opened:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if precision == "auto":
        precision = "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model, record = load(folder, device, dtype)
    return Opened(model, load_tokenizer(folder), end_of_text, device, precision, record)
