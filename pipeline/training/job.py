"""One cell's pretraining as data: what is trained on what, and what lies in its checkpoint folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.files import read_object, write_json
from pipeline.data import Manifest
from pipeline.models.config import ModelConfig, to_dict
from pipeline.results.records import CellIdentity, PretrainResult, read_result, write_result
from pipeline.study import Cell, Study, fingerprint, model_config, pretraining
from pipeline.study.schema import Pretrain, Uptraining
from pipeline.training.curve import Row
from pipeline.training.schedule import Schedule

RESULT = "result.json"
RESUME = "resume"


@dataclass(frozen=True)
class Job:
    """``pretrain`` are the keys of this cell's size.

    ``padding``: whether documents are padded to blocks (paper, appendix H); never for a vanilla model.
    """

    study: Study
    cell: Cell
    pretrain: Pretrain
    config: ModelConfig
    manifest: Manifest
    schedule: Schedule
    padding: bool
    fingerprint: str
    on_row: Callable[[Row], None] | None = None

    @classmethod
    def of(cls, study: Study, cell: Cell, on_row: Callable[[Row], None] | None = None) -> Job:
        """Raises :class:`UserError` where the tokens are missing or the study does not fit them."""
        pretrain = pretraining(study, cell)
        manifest = Manifest.read(paths.TOKENS)
        config = model_config(study, cell, manifest.model_vocabulary)
        schedule = Schedule.of(pretrain)
        padding = cell.variant is not None and study.variants[cell.variant].padding
        mark = fingerprint(config, pretrain, padding, cell.seed, manifest.hash, _start(study, cell))
        return cls(study, cell, pretrain, config, manifest, schedule, padding, mark, on_row)

    @property
    def uptraining(self) -> Uptraining | None:
        """How the cell's variant starts from its source's weights."""
        return self.study.variants[self.cell.variant].init if self.cell.variant is not None else None

    @property
    def identity(self) -> CellIdentity:
        """Who the job's results are about."""
        cell = self.cell
        return CellIdentity(
            cell.name, cell.family, cell.size, cell.seed, cell.block_length, cell.variant, self.fingerprint
        )

    @property
    def folder(self) -> Path:
        """The cell's checkpoint folder."""
        return paths.checkpoint(self.cell.name)

    @property
    def resume_path(self) -> Path:
        """State to resume from. The fingerprint in the name keeps other parameters' state from being continued."""
        return self.folder / RESUME / f"{self.fingerprint}.ckpt"

    @property
    def record(self) -> dict[str, Any]:
        """What ``config.json`` holds beside the model's configuration."""
        return {
            "cell": asdict(self.identity),
            "fingerprint": self.fingerprint,
            "pretrain": asdict(self.pretrain) | {"padding": self.padding},
            "corpus": self.manifest.hash,
            "code": code_hash(),
        }

    def stored_result(self) -> PretrainResult | None:
        """The result of a finished run of this very job by this very code, if there is one."""
        path, config = self.folder / RESULT, self.folder / "config.json"
        if not path.exists() or not config.exists() or read_object(config).get("code") != code_hash():
            return None
        result = read_result(path, PretrainResult, "pretrain")
        return result if result.cell.fingerprint == self.fingerprint else None

    def open_folder(self) -> None:
        """Remove what other parameters left behind and write what is known before training."""
        config = self.folder / "config.json"
        if self.folder.exists() and _fingerprint_in(config) != self.fingerprint:
            shutil.rmtree(self.folder)
        for left in self.folder.glob(f"{RESUME}/*"):
            if left != self.resume_path:
                left.unlink()
        (self.folder / RESULT).unlink(missing_ok=True)
        write_json(config, {"model": to_dict(self.config), **self.record})

    def close_folder(self, result: PretrainResult) -> None:
        """Write the result, which marks the folder as complete, and drop the state to resume from."""
        write_result(self.folder / RESULT, result)
        shutil.rmtree(self.folder / RESUME, ignore_errors=True)


@dataclass(frozen=True)
class Outcome:
    """What :func:`pipeline.training.lightning.trainer.fit` ends with. ``weights`` are the model's, on the CPU.

    Losses in nats a target token; ``seconds`` leave out validation and checkpoints; ``main``: this process has rank 0.
    """

    weights: dict[str, Tensor]
    steps: int
    target_tokens: int
    train_loss: float | None
    validation_loss: float | None
    seconds: float
    device: str
    precision: str
    diverged: bool
    main: bool


def _start(study: Study, cell: Cell) -> str | None:
    """What an uptrained cell starts from: the method and the source's fingerprint."""
    if cell.source is None:
        return None
    assert cell.variant is not None
    init = study.variants[cell.variant].init
    assert init is not None
    return f"{init.method} {_fingerprint_in(paths.checkpoint(cell.source) / 'config.json')}"


def _fingerprint_in(config: Path) -> str | None:
    try:
        found: str | None = read_object(config).get("fingerprint")
    except UserError:
        return None
    return found


@cache
def code_hash() -> str:
    """A hash of the code that decides a cell's weights, so that a changed model is trained anew."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for part in ("data", "models", "training"):
        for source in sorted((package / part).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def is_main_process() -> bool:
    """Whether this is the process of rank 0, by what Lightning, torchrun and SLURM set."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(rank, 0)) == 0 for rank in ranks)
