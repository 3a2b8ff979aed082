"""A model trained elsewhere becomes a cell: its checkpoint folder and its record."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import torch

from pipeline import paths
from pipeline.environment import describe, device_name
from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.interop.huggingface import from_huggingface, locate
from pipeline.interop.published import load_published, padded_published
from pipeline.models import checkpoint, costs
from pipeline.models.language_model import LanguageModel
from pipeline.results import CellIdentity, PretrainResult
from pipeline.study.schema import Pretrained


def bring_in(name: str, entry: Pretrained) -> PretrainResult:
    """Write ``checkpoints/<name>/`` from the entry's files. Raises :class:`UserError`, with nothing left half-written.

    A tokenizer.json beside the weights comes along; otherwise the model is taken to read the study's token ids.
    """
    model, source, padding = _read(name, entry)
    folder = paths.checkpoint(name)
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint.save(folder, model, {})
    identity = _identity(name, model, sha256(folder / checkpoint.WEIGHTS)[:16])
    record = {
        "cell": dataclasses.asdict(identity),
        "fingerprint": identity.fingerprint,
        "pretrain": {"path": entry.path, "padding": padding},
    }
    checkpoint.save(folder, model, record)
    tokenizer = source / "tokenizer.json"
    shutil.copyfile(tokenizer if tokenizer.exists() else paths.TOKENS / "tokenizer.json", folder / "tokenizer.json")
    return _result(identity, model)


def _read(name: str, entry: Pretrained) -> tuple[LanguageModel, Path, bool]:
    """The model, the folder of its files, and whether it was trained with random-length padding."""
    try:
        if entry.format == "huggingface":
            return from_huggingface(entry.path), locate(entry.path), False
        folder = Path(entry.path)
        padding = padded_published(folder) if entry.padding is None else entry.padding
        return load_published(folder), folder, padding
    except UserError as error:
        raise UserError(f"pretrained.{name}: {error}") from None


def _identity(name: str, model: LanguageModel, fingerprint: str) -> CellIdentity:
    config = model.config
    block_length = config.first if config.family == "block" else None
    return CellIdentity(name, config.family, name, 0, block_length, None, fingerprint)


def _result(identity: CellIdentity, model: LanguageModel) -> PretrainResult:
    dtype = next(model.parameters()).dtype
    return PretrainResult(
        cell=identity,
        environment=describe(device_name("cpu"), torch.get_num_threads(), str(dtype).removeprefix("torch.")),
        parameters=costs.parameters(model.config),
        non_embedding_parameters=costs.non_embedding_parameters(model.config),
        total_parameters=costs.total_parameters(model.config),
        steps=0,
        tokens=0,
        target_tokens=0,
        training_flops=0.0,
        train_loss=None,
        validation_loss=None,
        seconds=0.0,
        tokens_per_second=0.0,
        peak_memory=0,
    )
