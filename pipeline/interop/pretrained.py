"""A model trained elsewhere becomes a cell: its checkpoint folder and its record."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.files import foreign, sha256
from pipeline.device import cpu_name
from pipeline.interop.huggingface import from_huggingface, located
from pipeline.interop.published import load_published
from pipeline.interop.published_config import trained_with_padding
from pipeline.models import LanguageModel, checkpoint, costs
from pipeline.models.config import BlockConfig
from pipeline.results.environment import describe, provenance
from pipeline.results.records import CellIdentity, PretrainResult
from pipeline.study.schema import Pretrained


def bring_in(name: str, source: Pretrained) -> PretrainResult:
    """Write checkpoints/<name>/ from ``source``; the record tells sizes, and no losses, steps or tokens.

    Raises :class:`UserError` for files that are missing, damaged or not supported.
    """
    target = paths.checkpoint(name)
    with _folder(source) as folder:
        model, padding = _read(folder, source)
        tokenizer = _tokenizer(folder, model)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        shutil.copyfile(tokenizer, target / "tokenizer.json")
    checkpoint.save_weights(target, model)
    identity = _identity(name, source, model, sha256(target / checkpoint.WEIGHTS)[:16])
    record = {
        "cell": asdict(identity),
        "fingerprint": identity.fingerprint,
        "pretrain": {"padding": padding if source.padding is None else source.padding},
        "source": {"path": source.path, "format": source.format},
    }
    checkpoint.save_config(target, model, record)
    return _result(identity, model)


def _folder(source: Pretrained) -> AbstractContextManager[Path]:
    return nullcontext(Path(source.path)) if source.format == "published" else located(source.path)


def _read(folder: Path, source: Pretrained) -> tuple[LanguageModel, bool]:
    """The model, and whether it saw random-length padding."""
    if source.format == "published":
        model, config = load_published(folder)
        return model, isinstance(model.config, BlockConfig) and trained_with_padding(config)
    return from_huggingface(folder), False


def _tokenizer(folder: Path, model: LanguageModel) -> Path:
    """The tokenizer beside the weights, or the study's, which the model is then taken to share.

    It is read before it is copied: a link in a folder from elsewhere may lead to any file.
    """
    from tokenizers import Tokenizer

    for candidate in (folder / "tokenizer.json", paths.TOKENS / "tokenizer.json"):
        if not candidate.is_file():
            continue
        try:
            tokenizer = Tokenizer.from_file(str(candidate))
        except Exception as error:  # tokenizers raises plain Exception
            problem = " ".join(str(error).split())
            what = foreign(candidate) or f"not a tokenizer of the tokenizers library ({problem})"
            raise UserError(f"{candidate}: {what}") from None
        tokens = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        _require_fit(tokens, candidate, model)
        return candidate
    raise UserError(f"{folder / 'tokenizer.json'}: no such file; put the model's tokenizer there")


def _require_fit(tokens: int, tokenizer: Path, model: LanguageModel) -> None:
    """Raise :class:`UserError` where the tokenizer has tokens that the model's table lacks; the reverse is padding."""
    if tokens > model.config.vocabulary:
        raise UserError(
            f"{tokenizer}: it has token ids up to {tokens - 1}, but the model's vocabulary (vocab_size) is "
            f"{model.config.vocabulary}; put the model's own tokenizer beside its weights"
        )


def _identity(name: str, source: Pretrained, model: LanguageModel, fingerprint: str) -> CellIdentity:
    config = model.config
    block_length = config.block_length if isinstance(config, BlockConfig) else None
    return CellIdentity(name, config.family, source.size or name, 0, block_length, None, fingerprint)


def _result(identity: CellIdentity, model: LanguageModel) -> PretrainResult:
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return PretrainResult(
        cell=identity,
        environment=describe(cpu_name(), torch.get_num_threads(), dtype),
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
        provenance=provenance(paths.checkpoint(identity.name)),
    )
