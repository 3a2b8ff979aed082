"""Training: loss, optimizer and schedule, Lightning module and data, callbacks, exact resuming."""

from pipeline.base.ranks import is_main_process
from pipeline.training.pretrain import pretrain
from pipeline.training.stopping import Stopped

__all__ = ["Stopped", "is_main_process", "pretrain"]
