"""What a stage says at its start under DVC, where it stands and how long the rest takes, and the time that it notes."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from pipeline.base.command import AT_GOOD_END
from pipeline.base.errors import UserError
from pipeline.base.ranks import is_main_process
from pipeline.commands.plan import UNKNOWN, CellPlan, plan, time_to_go
from pipeline.execution.noted import stages_up_to_date
from pipeline.execution.processes import RUN, STAGE
from pipeline.execution.stages import CHECK, kind_of, study_stages
from pipeline.execution.timings import note_time
from pipeline.study import Study, load_study


def begin() -> None:
    """Print the stage's line, but for `python -m pipeline run`, which shows all of them; note the time at its end.

    A stage that the study does not have, such as a search, is passed over, and so is a study that is not well-formed:
    the stage itself says what is wrong with it.
    """
    stage, begun = os.environ[STAGE], time.monotonic()
    with suppress(UserError, OSError):
        study = load_study()
        stages = study_stages(study)
        if stage not in stages or not is_main_process():
            return
        planned = _planned(study)
        flops = {each.cell: each.flops_to_go for each in planned}
        trained = flops.get(stage.partition("@")[2], 0.0) if kind_of(stage) == "pretrain" else 0.0
        AT_GOOD_END.append(lambda: note_time(stage, time.monotonic() - begun, trained))
        if RUN not in os.environ:
            # The stage `check` comes first, whatever it then finds to be out of date.
            number = 1 if stage == CHECK else len(stages_up_to_date(study) - {stage}) + 1
            print(f"stage {number} of {len(stages)}{_left(planned)}", flush=True)


def _left(planned: list[CellPlan]) -> str:
    """What the line says of the time: nothing where there is hardly any left, or no plan yet."""
    left = time_to_go(planned)
    if left is None:
        return f"; the cells are to go, and {UNKNOWN}"
    return f"; {left} left" if left.seconds >= 1 else ""


def _planned(study: Study) -> list[CellPlan]:
    """The cells' plans; none while a model trained elsewhere is still to be brought in, which tells its own cost."""
    with suppress(UserError):
        return plan(study)
    return []
