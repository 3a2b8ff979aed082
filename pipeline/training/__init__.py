"""Training: loss, optimizer and schedule, Lightning module and data, callbacks, exact resuming."""

from pipeline.training.pretrain import pretrain
from pipeline.training.stopping import Stopped

__all__ = ["Stopped", "pretrain"]
