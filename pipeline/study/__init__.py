"""The study: params.yaml as strict dataclasses, the grid's cells, a cell's architecture and fingerprint."""

from pipeline.study.cells import Cell, cells, find_cell, fingerprint, model_config, pretraining, training_steps
from pipeline.study.load import load_study
from pipeline.study.schema import Study

__all__ = [
    "Cell",
    "Study",
    "cells",
    "find_cell",
    "fingerprint",
    "load_study",
    "model_config",
    "pretraining",
    "training_steps",
]
