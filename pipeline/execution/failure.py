"""Why a stage's process ended badly, in one line."""

from __future__ import annotations

import signal

from pipeline.execution.board import log_of
from pipeline.execution.stages import Stage
from pipeline.results.failures import failure


def failure_line(stage: Stage, code: int, offset: int) -> str:
    """The error that the command said, in its log from that byte on, or that it noted; else what ended it."""
    with log_of(stage.name).open("rb") as opened:
        opened.seek(offset)
        lines = opened.read().decode("utf-8", errors="replace").splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if code < 0:
        return f"ended by {signal.Signals(-code).name}{', twice' if -code == signal.SIGKILL else ''}"
    noted = noted_failure(stage) if stage.cell else None
    spoken = [line.strip() for line in lines if line.strip()]
    return (said[-1:] or ([noted] if noted else spoken[-1:]) or [f"ended with status {code}"])[0]


def noted_failure(stage: Stage) -> str | None:
    """The line that a cell's stage ended with, if it has not been run again since."""
    return failure(noted_kind(stage), stage.cell)


def noted_kind(stage: Stage) -> str:
    """As what the stage notes its failures."""
    return "pretrain" if stage.kind == "pretrained" else stage.kind
