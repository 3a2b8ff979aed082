"""What a stage says at its start under DVC, where it stands and how long the rest takes, and the time that it notes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.base.errors import UserError
from pipeline.base.ranks import is_main_process
from pipeline.commands.plan import CellPlan, plan, time_to_go
from pipeline.execution.noted import stages_up_to_date
from pipeline.execution.processes import RUN, STAGE
from pipeline.execution.stages import CHECK, kind_of, study_stages
from pipeline.execution.timings import note_time
from pipeline.study import Study, load_study


@contextmanager
def announced() -> Iterator[None]:
    """Print the stage's line, but for `python -m pipeline run`, which shows all of them; note the time at a good end.

    A stage that the study does not have, such as a search, is passed over, and so is a study that is not well-formed:
    the stage itself says what is wrong with it.
    """
    stage, begun = os.environ[STAGE], time.monotonic()
    study = _study()
    if study is None or stage not in study_stages(study) or not is_main_process():
        yield
        return
    planned = _planned(study)
    if RUN not in os.environ:
        print(_line(study, stage, planned), flush=True)
    yield
    flops = {entry.cell: entry.flops_to_go for entry in planned}
    trained = flops.get(stage.partition("@")[2], 0.0) if kind_of(stage) == "pretrain" else 0.0
    note_time(stage, time.monotonic() - begun, trained)


def _line(study: Study, stage: str, planned: list[CellPlan]) -> str:
    """Stages that are up to date count as done; `check` comes first, whatever it then finds to be out of date."""
    number = 1 if stage == CHECK else len(stages_up_to_date(study) - {stage}) + 1
    return f"stage {number} of {len(study_stages(study))}{_left(planned)}"


def _left(planned: list[CellPlan]) -> str:
    """What the line says of the time: nothing where there is hardly any left, or no plan yet."""
    left = time_to_go(planned)
    if left is None:
        return "; how long the rest takes is known once such stages have run on this machine"
    return f"; {left} left" if left.seconds >= 1 else ""


def _study() -> Study | None:
    with suppress(UserError):
        return load_study()
    return None


def _planned(study: Study) -> list[CellPlan]:
    """The cells' plans; none while a model trained elsewhere is still to be brought in, which tells its own cost."""
    with suppress(UserError):
        return plan(study)
    return []
