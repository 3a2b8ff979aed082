"""The study: params.yaml as strict dataclasses, the grid's cells, a cell's architecture, what decides it."""

from pipeline.study.cells import Cell, cells, find_cell, model_config, whole_cells
from pipeline.study.load import check_dvc_keys, load_study
from pipeline.study.pretraining import pretraining, training_steps
from pipeline.study.schema import Study

__all__ = [
    "Cell",
    "Study",
    "cells",
    "check_dvc_keys",
    "find_cell",
    "load_study",
    "model_config",
    "pretraining",
    "training_steps",
    "whole_cells",
]
