"""What a run shows of itself: rows of the curve, validation, the progress line; and the guard against divergence."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.distributed import all_reduce

from pipeline.base.device_rates import product_rate
from pipeline.base.progress import Progress
from pipeline.models.costs import training_flops_per_token
from pipeline.study.recipe import matrix_learning_rate
from pipeline.training.curve import Curve, Row
from pipeline.training.job import Job
from pipeline.training.lightning.data import PretrainingData
from pipeline.training.lightning.module import PretrainingModule
from pipeline.training.meter import Reading, peak_memory
from pipeline.training.validation import held_out_sums

STATE = ("step", "train_loss", "validation_loss", "seconds", "target_tokens")


class Recorder(Callback):
    """Reads the meter every ``log_every`` steps, before every checkpoint and at validations: one row each time.

    A mean loss that is not finite, or over twice that of a uniform guess, ends training: ``diverged`` is set.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.schedule = job.schedule
        self.log_every = job.study.hardware.log_every
        self.diverged = False
        self.step = 0
        self.train_loss: float | None = None
        self.validation_loss: float | None = None
        self.seconds = 0.0
        self.target_tokens = 0
        self._facts = ""
        self._progress = Progress(job.cell.name, job.schedule.steps)
        self._clock = 0.0
        self._flops_per_token = training_flops_per_token(job.config)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in STATE:
            setattr(self, name, state_dict[name])

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PretrainingData)
        objective = pl_module.objective
        self._peak = product_rate(pl_module.device, objective.precision) * trainer.world_size
        self._windows: Tensor = data.validation_windows().to(pl_module.device)
        assert self.step == trainer.global_step
        self._curve = Curve(self.job.curve_path, self.step, self.job.config.stride) if trainer.is_global_zero else None
        self.resume_clock()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        step = trainer.global_step
        last = step == self.schedule.steps
        validate = last or step % self.job.pretrain.validate_every == 0
        if validate or step % self.log_every == 0:
            self.flush(trainer, validate)
        if trainer.is_global_zero:
            self._progress.show(step, self._facts)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._progress.close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._progress.close()

    def resume_clock(self) -> None:
        """Forget the time since the last row: it went into validation or a checkpoint."""
        self._clock = time.perf_counter()

    def flush(self, trainer: Trainer, validate: bool = False) -> None:
        """Write the row of the steps since the last one, if there are any."""
        module, step = trainer.lightning_module, trainer.global_step
        assert isinstance(module, PretrainingModule)
        if step == self.step:
            return
        reading = module.meter.read()
        elapsed = time.perf_counter() - self._clock
        if not reading.finite or reading.loss > 2 * math.log(self.job.config.vocabulary):
            self.diverged = trainer.should_stop = True
            return
        self.seconds += elapsed
        self.target_tokens += reading.targets
        if validate:
            self.validation_loss = self._validate(module)
        self._record(self._row(step, reading, elapsed, self.validation_loss if validate else None))
        self.resume_clock()

    def _row(self, step: int, reading: Reading, elapsed: float, validation_loss: float | None) -> Row:
        tokens_per_step = self.job.pretrain.batch_size * self.job.pretrain.context_length
        speed = (step - self.step) * tokens_per_step / elapsed
        matrix_peak = matrix_learning_rate(self.job.pretrain)
        return Row(
            step=step,
            tokens=step * tokens_per_step,
            train_loss=reading.loss,
            learning_rate=self.schedule.rate(self.job.pretrain.learning_rate, step),
            matrix_learning_rate=None if matrix_peak is None else self.schedule.rate(matrix_peak, step),
            gradient_norm=reading.gradient_norm,
            tokens_per_second=speed,
            validation_loss=validation_loss,
            utilization=speed * self._flops_per_token / self._peak,
            memory=peak_memory(),
            time=time.time_ns() // 1_000_000,
            loss_by_position=reading.by_position,
        )

    def _record(self, row: Row) -> None:
        self.step, self.train_loss = row.step, row.train_loss
        self._facts = f"loss {row.train_loss:.3f}  {_thousands(row.tokens_per_second)} tokens/s"
        if self._curve is None:
            return
        self._curve.append(row)
        if self.job.on_row is not None:
            self.job.on_row(row)

    def _validate(self, module: PretrainingModule) -> float:
        module.eval()
        sums = held_out_sums(module.objective, self._windows, module.micro_batch or 1, self.job.padding)
        module.train()
        if module.trainer.world_size > 1:
            all_reduce(sums)
        loss, targets = sums.tolist()
        return float(loss / targets)


def _thousands(rate: float) -> str:
    return f"{rate / 1000:.1f}K" if rate < 1e6 else f"{rate / 1e6:.2f}M"
