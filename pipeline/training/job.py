"""One cell's pretraining as data: what is trained on what, and what lies in its checkpoint folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.base import paths
from pipeline.base.files import write_json
from pipeline.data import Manifest
from pipeline.models.config import ModelConfig
from pipeline.results.records import CellIdentity, PretrainResult, read_result, write_result
from pipeline.study import Cell, Study, model_config, pretraining
from pipeline.study.causes import training_record, trunk_mark
from pipeline.study.schema import Pretrain, Uptraining
from pipeline.study.superseded import RESULT, bring_back, changes, mark, set_aside, training_in
from pipeline.study.trunks import Trunk
from pipeline.study.waypoints import again_for, lacking
from pipeline.training.curve import Row
from pipeline.training.schedule import Schedule

RESUME = "resume"


@dataclass(frozen=True)
class Job:
    """``pretrain`` are the keys of this cell. ``record`` is what ``config.json`` holds. ``trunk`` may save a beginning.

    ``padding``: whether documents are padded to blocks (paper, appendix H); never for a vanilla model.
    """

    study: Study
    cell: Cell
    pretrain: Pretrain
    config: ModelConfig
    manifest: Manifest
    schedule: Schedule
    padding: bool
    record: dict[str, Any]
    trunk: Trunk
    on_row: Callable[[Row], None] | None = None

    @classmethod
    def of(cls, study: Study, cell: Cell, on_row: Callable[[Row], None] | None = None) -> Job:
        """Raises :class:`UserError` where the tokens are missing or the study does not fit them."""
        pretrain = pretraining(study, cell)
        manifest = Manifest.read(paths.TOKENS)
        config = model_config(study, cell, manifest.model_vocabulary)
        schedule = Schedule.of(pretrain)
        record = training_record(study, cell, config, manifest.hash)
        padding, trunk = record["pretrain"]["padding"], Trunk.of(cell, trunk_mark(study, cell, config, record))
        return cls(study, cell, pretrain, config, manifest, schedule, padding, record, trunk, on_row)

    @property
    def uptraining(self) -> Uptraining | None:
        """How the cell's variant starts from its source's weights."""
        return self.study.variants[self.cell.variant].init if self.cell.variant is not None else None

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the weights but the code."""
        own: str = self.record["fingerprint"]
        return own

    @property
    def identity(self) -> CellIdentity:
        """Who the job's results are about."""
        return self.cell.identity(self.fingerprint)

    @property
    def folder(self) -> Path:
        """The cell's checkpoint folder."""
        return paths.checkpoint(self.cell.name)

    @property
    def resume_path(self) -> Path:
        """State to resume from. The fingerprint in the name keeps other parameters' state from being continued."""
        return self.folder / RESUME / f"{self.fingerprint}.ckpt"

    @property
    def curve_path(self) -> Path:
        """The training curve."""
        return self.folder / "curve.csv"

    def stored_result(self) -> PretrainResult | None:
        """The result of a finished run of this very job by this very code, if there is one."""
        own = mark(self.record)
        # Another process may be bringing it back, so that it is in one place after the other.
        for folder in (self.folder, paths.SUPERSEDED / self.cell.name / own, self.folder):
            training = training_in(folder)
            if training is None or not training.complete or mark(training.record) != own:
                continue
            if not lacking(self.study, self.cell, folder, training.step):
                return read_result(folder / RESULT, PretrainResult, "pretrain")
        return None

    def lacking(self, step: int) -> list[int]:
        """The waypoints up to ``step`` whose weights are not in the folder: a state of that step is no beginning."""
        return lacking(self.study, self.cell, self.folder, step)

    def take_place(self) -> None:
        """Make the cell's folder this job's: what was trained there otherwise is set aside, its own brought back."""
        name, own = self.cell.name, mark(self.record)
        present = training_in(self.folder)
        if present is not None and mark(present.record) != own:
            aside = set_aside(name)
            if aside is not None:
                changed = changes(present.record, self.record)
                say(f"{name}: changed: {changed}; the training so far ({present.progress}) is kept in {aside}")
        if not self.folder.exists() and (back := bring_back(name, own)) is not None:
            say(f"{name}: the training with these keys and this code is back ({back.progress})")
        present = training_in(self.folder)
        lost = self.lacking(present.step) if present is not None else []
        if lost:
            say(f"{name}: {again_for(lost)}")

    def open_folder(self) -> None:
        """Write what is known before training."""
        (self.folder / RESULT).unlink(missing_ok=True)
        write_json(self.folder / "config.json", self.record)

    def close_folder(self, result: PretrainResult) -> None:
        """Write the result, which marks the folder as complete, and drop the state to resume from."""
        write_result(self.folder / RESULT, result)
        shutil.rmtree(self.folder / RESUME, ignore_errors=True)


@dataclass(frozen=True)
class Outcome:
    """What :func:`pipeline.training.lightning.trainer.fit` ends with. ``weights`` are the model's, on the CPU.

    Losses in nats per target token. ``seconds`` leave out validation and checkpoints. ``main``: rank 0's process.
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
    compiler_failed: bool
    main: bool


def say(line: str) -> None:
    """A line for people."""
    print(line, file=sys.stderr, flush=True)
