"""State to resume from: written beside training, whole or not at all, and never loaded under other parameters."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from pipeline.base.files import replacing
from pipeline.training.lightning.recorder import Recorder
from pipeline.training.stopping import StopRequest


class ResumeIO(TorchCheckpointIO):
    """Copies the state to the host and writes it in a thread, to a temporary name that is then renamed."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.wait()
        state = _on_host(checkpoint) | {"fingerprint": self.fingerprint}
        self._pending = self._writer.submit(_write, state, Path(path))

    def wait(self) -> None:
        """Until the last state is on disk; raises what its writing raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def teardown(self) -> None:
        self.wait()


class Resume(Callback):
    """Saves the state every so many steps, and when a signal asks to stop."""

    def __init__(self, path: Path, every: int, recorder: Recorder, stop: StopRequest) -> None:
        self.path = path
        self.every = every
        self.recorder = recorder
        self.stop = stop
        self.stopped_at: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop.listen()
        # Lightning asks all processes at every step whether one got SIGTERM, and waits for the device to hear it;
        # here they agree on that every `log_every` steps.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        stopping = self._agreed(trainer, step)
        if step == self.recorder.schedule.steps or not (stopping or step % self.every == 0):
            return
        self.recorder.flush(trainer)
        if self.recorder.diverged:
            return
        trainer.save_checkpoint(self.path)
        self.recorder.resume_clock()
        if stopping:
            self.stopped_at = step
            trainer.should_stop = True

    def _agreed(self, trainer: Trainer, step: int) -> bool:
        """Whether to stop: with several processes they agree now and then, since that takes a message."""
        if trainer.world_size == 1:
            return self.stop.requested
        if step % self.recorder.log_every:
            return False
        return trainer.strategy.reduce_boolean_decision(self.stop.requested, all=False)


def read_state(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The saved state, mapped from its file; ``None`` where there is none that is whole and of this fingerprint."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, EOFError, OSError):
        return None
    return state if state.get("fingerprint") == fingerprint else None


def _nothing() -> None:
    pass


def _on_host(value: Any) -> Any:
    """A copy of nested dictionaries and lists whose tensors lie on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_host(item) for key, item in value.items()}
    return [_on_host(item) for item in value] if isinstance(value, list) else value


def _write(state: dict[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        torch.save(state, temporary)
