"""State to resume from: written beside training, whole or not at all, and never loaded under other parameters.

Where a budget's cooldown begins the state is also kept in the trunk, for other runs of the model to begin with. At a
waypoint the weights alone are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.base.files import is_file, replacing
from pipeline.device import accelerator
from pipeline.study.trunks import branches
from pipeline.study.waypoints import waypoints, weights_at
from pipeline.training.hardware import processes
from pipeline.training.job import Job, say
from pipeline.training.lightning.recorder import Recorder
from pipeline.training.stopping import StopRequest

PREFIX = "objective.model."


class ResumeIO(TorchCheckpointIO):
    """Copies the state to the host and writes it in a thread, to a temporary name that is then renamed."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.marks = {"fingerprint": job.fingerprint, "trunk": job.trunk.folder.name, "sharded": sharded(job)}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.wait()
        state = _on_host(checkpoint) | self.marks
        self._pending = self._writer.submit(_write, state, Path(path))

    def wait(self) -> None:
        """Until the last state is on disk; raises what its writing raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def teardown(self) -> None:
        self.wait()


class Resume(Callback):
    """Saves the state every so many steps, when a signal asks to stop, and where a cooldown begins; and waypoints."""

    def __init__(self, job: Job, recorder: Recorder, stop: StopRequest) -> None:
        self.job = job
        self.every = job.study.hardware.checkpoint_every
        self.branches = branches(job.study, job.cell)
        self.waypoints = waypoints(job.study, job.cell)
        self.recorder = recorder
        self.stop = stop
        self.stopped_at: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop.listen()
        same = trainer.strategy.broadcast(trainer.global_step) == trainer.global_step
        if not trainer.strategy.reduce_boolean_decision(same, all=True):  # so that all of them end, not some
            raise UserError(
                f"{self.job.cell.name}: another run has just added to {self.job.trunk.folder}; run it again"
            )
        # Lightning asks all processes at every step whether one got SIGTERM, and waits for the device to hear it;
        # here they agree on that every `log_every` steps.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        stopping = self._agreed(trainer, step)
        saving, branching = stopping or step % self.every == 0, step in self.branches
        if step == self.job.schedule.steps or not (saving or branching or step in self.waypoints):
            return
        self.recorder.flush(trainer)
        if self.recorder.diverged:
            return
        if step in self.waypoints:  # before any state of that step, which training may go on from
            _write_weights(trainer, weights_at(self.job.folder, self.waypoints[step]))
        if branching:
            self._keep(trainer, step)
        if saving:
            trainer.save_checkpoint(self.job.resume_path)
        self.recorder.resume_clock()
        if stopping:
            self.stopped_at = step
            trainer.should_stop = True

    def _keep(self, trainer: Trainer, step: int) -> None:
        """Keep the state in the trunk, the curve first: a state without one is never begun with."""
        trunk = self.job.trunk
        if trainer.is_global_zero:
            _copy(self.job.curve_path, trunk.curve(step))
        trainer.save_checkpoint(trunk.state(step))

    def _agreed(self, trainer: Trainer, step: int) -> bool:
        """Whether to stop: with several processes they agree now and then, since that takes a message."""
        if trainer.world_size == 1:
            return self.stop.requested
        if step % self.recorder.log_every:
            return False
        return trainer.strategy.reduce_boolean_decision(self.stop.requested, all=False)


def begin_in_trunk(job: Job) -> None:
    """Put the furthest state of its trunk in the place of a job's own, and its curve, unless the job has a state."""
    step = None if read_state(job.resume_path, job) is not None else _furthest(job)
    if step is None:
        return
    _copy(job.trunk.curve(step), job.curve_path)
    _copy(job.trunk.state(step), job.resume_path)
    say(f"{job.cell.name} begins after {step:,} of {job.schedule.steps:,} steps, with {job.trunk.state(step)}")


def state_to_begin_with(job: Job) -> Path | None:
    """The job's own state, or the furthest of its trunk, which the main process may still be copying."""
    if read_state(job.resume_path, job) is not None:
        return job.resume_path
    step = _furthest(job)
    return None if step is None else job.trunk.state(step)


def _furthest(job: Job) -> int | None:
    """The last step of its trunk whose state and curve the job may begin with."""
    for step in reversed(job.trunk.steps):
        state = read_state(job.trunk.state(step), job)
        if state is not None and _in_trunk(state, job) and is_file(job.trunk.curve(step)):
            return step
    return None


def read_state(path: Path, job: Job) -> dict[str, Any] | None:
    """The saved state, mapped from its file; ``None`` where there is none that is whole and the job may continue.

    It may not where it has passed a waypoint without keeping the weights.
    """
    if not path.exists():
        return None
    try:
        state: Any = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, EOFError, OSError, UnpicklingError):
        return None
    if not isinstance(state, dict) or "global_step" not in state:
        return None
    if job.lacking(state["global_step"]):
        return None
    return state if state.get("fingerprint") == job.fingerprint or _in_trunk(state, job) else None


def _in_trunk(state: dict[str, Any], job: Job) -> bool:
    """Whether the state is one of the job's trunk, in the form that its strategy loads."""
    same = (state.get("trunk"), state.get("sharded")) == (job.trunk.folder.name, sharded(job))
    return same and bool(state["global_step"] <= job.schedule.trunk_steps)


def sharded(job: Job) -> bool:
    """Whether several processes share parameters and optimizer: Lightning saves their state in a form of its own."""
    hardware = job.study.hardware
    return hardware.strategy == "fsdp" and processes(hardware, accelerator(hardware), job.pretrain.batch_size) > 1


def _nothing() -> None:
    pass


def _on_host(value: Any) -> Any:
    """A copy of nested dictionaries and lists whose tensors lie on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_host(item) for key, item in value.items()}
    return [_on_host(item) for item in value] if isinstance(value, list) else value


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _write_weights(trainer: Trainer, path: Path) -> None:
    """Write the model's weights, which all processes bring together, in the main one."""
    weights = model_weights(trainer.strategy.lightning_module_state_dict())
    if trainer.is_global_zero:
        with replacing(path) as temporary:
            save_file({name: weight.contiguous() for name, weight in weights.items()}, temporary, {"format": "pt"})


def model_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own weights among those of the Lightning module, on the CPU."""
    return {name.removeprefix(PREFIX): weight.detach().cpu() for name, weight in state.items()}


def _write(state: dict[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        torch.save(state, temporary)
