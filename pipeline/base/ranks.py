"""Which of a stage's processes this is, where several train together."""

from __future__ import annotations

import os

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def is_main_process() -> bool:
    """Whether this is the process of rank 0, by what Lightning, torchrun and SLURM set."""
    return all(int(os.environ.get(rank, 0)) == 0 for rank in RANKS)
