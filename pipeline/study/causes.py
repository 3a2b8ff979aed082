"""What decides each result, its keys and its code, as the files that DVC watches: the stage `check` writes them.

An edit that changes no such file changes no result: a comment, a docstring, a key that is written out with its default.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.base import paths
from pipeline.base.code import code_of
from pipeline.base.files import is_file, read_json, write_json
from pipeline.base.made_of import made_of
from pipeline.base.paths import CAUSES
from pipeline.models.config import ModelConfig, to_dict
from pipeline.study.cells import Cell, cells, find_cell, model_config
from pipeline.study.pretraining import pretraining
from pipeline.study.schema import Json, Study
from pipeline.study.superseded import mark, training_in
from pipeline.study.trunks import COOLDOWN_KEYS
from pipeline.study.waypoints import waypoints

READING = ("pipeline.base", "pipeline.study", "pipeline.commands", "pipeline.tracking")
"""Code that no result is made by: it reads the study, whose keys count as they were read, and writes files.

What does make a result there, or is reached through there alone, is a root of its stage.
"""

RATES, DOMINANCE = "pipeline.base.device_rates", "pipeline.base.dominance"
"""What a roofline and what a Pareto front is made by."""

RECORDS = "pipeline.results"
"""What a record looks like: for the report to read."""

FAMILIES = {"vanilla": "pipeline.models.vanilla", "block": "pipeline.models.block_transformer"}
TRAINING = ("pipeline.training.lightning.module", "pipeline.training.lightning.data", "pipeline.study.recipe")
START = ("pipeline.models.factory", "pipeline.training.start")
"""These build either family: they count without what they import, since no vanilla cell depends on block models."""

OPTIMIZERS = "pipeline.training.optimizers"
UPTRAINING = "pipeline.interop.uptraining"
BESIDE_TRAINING = (
    *READING,
    RECORDS,
    "pipeline.data.manifest",  # a cell's fingerprint has the hash of its tokens
    "pipeline.models.checkpoint",
    "pipeline.training.curve",
    "pipeline.training.hardware",
    "pipeline.training.job",
    "pipeline.training.meter",
    "pipeline.training.wrapping",
)
"""Modules that training runs and that change its weights by rounding at most."""


@dataclass(frozen=True)
class Stage:
    """The keys that a stage reads, sections or parts of them, what its code leaves out, and further modules of it."""

    keys: tuple[str, ...]
    without: tuple[str, ...] = (*READING, RECORDS)
    roots: tuple[str, ...] = ()


STAGES = {
    "corpus": Stage(("corpus",)),
    "tokenize": Stage(("tokenize",)),
    "evaluate": Stage(("evaluate", "tokenize.end_of_text")),
    "benchmark": Stage(("benchmark", "hardware.label"), roots=(RATES,)),
    "report": Stage(
        ("name", "sizes", "variants", "grid", "pretrain", "recipes", "pretrained"), READING, roots=(DOMINANCE,)
    ),
    "search": Stage(
        ("search", "sizes", "variants", "recipes", "pretrain", "benchmark", "hardware.label"),
        roots=("pipeline.search.allocation", RATES, DOMINANCE),
    ),
    "tune": Stage(("tune", "sizes", "variants", "recipes", "pretrain"), roots=("pipeline.search.tuning", DOMINANCE)),
}


def write_causes(study: Study, vocabulary: int) -> None:
    """Write the file of every stage and cell, and remove those of cells that are gone; equal files stay untouched."""
    causes = {CAUSES / f"{name}.json": stage_cause(study, name) for name in STAGES}
    causes |= {_of_cell(cell): cell_cause(study, cell, vocabulary) for cell in cells(study)}
    for path, cause in causes.items():
        if not is_file(path) or read_json(path) != cause:
            write_json(path, cause)
    for path in CAUSES.rglob("*.json"):
        if path not in causes:
            path.unlink()


def edited_since(study: Study, kind: str, cell: str, vocabulary: int) -> Path | None:
    """The file of what decides a stage's results, if what it tells is not the study's any more."""
    if kind in STAGES:
        path, cause = CAUSES / f"{kind}.json", stage_cause(study, kind)
    else:
        grid_cell = find_cell(study, cell)
        path, cause = _of_cell(grid_cell), cell_cause(study, grid_cell, vocabulary)
    return None if read_json(path) == cause else path


def stage_cause(study: Study, name: str) -> Json:
    """What decides the stage's results, beside its inputs."""
    stage = STAGES[name]
    if name in ("search", "tune"):  # a trial has no budgets
        study = dataclasses.replace(study, pretrain=dataclasses.replace(study.pretrain, budgets=[]))
    return {
        "keys": {key: made_of(_value(study, key)) for key in stage.keys},
        "code": code_of([f"stages.{name}", *stage.roots], stage.without),
    }


def cell_cause(study: Study, cell: Cell, vocabulary: int) -> Json:
    """What decides the cell's weights, those of its waypoints too, beside the tokens and an uptrained cell's source."""
    if cell.family == "pretrained":
        code = code_of(["stages.pretrained"], (*READING, RECORDS))
        return {"keys": made_of(study.pretrained[cell.name]), "code": code}
    config = model_config(study, cell, vocabulary)
    kept = list(waypoints(study, cell).values())
    causes = {**keys_of(study, cell, config), "code": training_code(study, cell, config)}
    return causes | ({"at": kept} if kept else {})


def keys_of(study: Study, cell: Cell, config: ModelConfig) -> Json:
    """The keys that decide the cell's weights, as its fingerprint has them."""
    variant = None if cell.variant is None else study.variants[cell.variant]
    return {
        "model": to_dict(config),
        "pretrain": made_of(pretraining(study, cell)),
        "padding": variant is not None and variant.padding,
        "seed": cell.seed,
        "start": variant.init.method if variant is not None and variant.init is not None else None,
    }


def training_code(study: Study, cell: Cell, config: ModelConfig) -> dict[str, str]:
    """The code that decides the weights of a model of that family, trained by that optimizer."""
    roots = [FAMILIES[config.family], *TRAINING, *START, f"{OPTIMIZERS}.{pretraining(study, cell).optimizer}"]
    return code_of(roots + ([] if cell.source is None else [UPTRAINING]), BESIDE_TRAINING, START)


def training_record(study: Study, cell: Cell, config: ModelConfig, corpus: str) -> Json:
    """What a cell's ``config.json`` holds: its model, who it is, and all that decides its weights.

    ``corpus`` is the hash of its tokens. ``start`` says how an uptrained cell starts, and from which weights.
    """
    keys = keys_of(study, cell, config)
    start = None if cell.source is None else f"{keys['start']} {_fingerprint_in(paths.checkpoint(cell.source))}"
    own = fingerprint(keys, corpus, start)
    return {
        "model": keys["model"],
        "cell": made_of(cell.identity(own)),
        "fingerprint": own,
        "pretrain": dataclasses.asdict(pretraining(study, cell)) | {"padding": keys["padding"]},
        "start": start,
        "corpus": corpus,
        "code": training_code(study, cell, config),
    }


def fingerprint(keys: Json, corpus: str, start: str | None) -> str:
    """A hash of all that decides a cell's weights but the code: its keys, the hash of its tokens, and its start."""
    made = keys | {"corpus": corpus, "start": start}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def trunk_mark(study: Study, cell: Cell, config: ModelConfig, record: Json) -> str:
    """What trainings share that differ in tokens and cooldown alone; ``record``: the cell's :func:`training_record`."""
    keys = keys_of(study, cell, config)
    pretrain = {key: value for key, value in keys["pretrain"].items() if key not in COOLDOWN_KEYS}
    shared = fingerprint(keys | {"pretrain": pretrain}, record["corpus"], record["start"])
    return mark(record | {"fingerprint": shared})


def _of_cell(cell: Cell) -> Path:
    return CAUSES / "cells" / f"{cell.name}.json"


def _fingerprint_in(folder: Path) -> str | None:
    training = training_in(folder)
    return None if training is None else training.record.get("fingerprint")


def _value(study: Study, key: str) -> object:
    value: object = study
    for part in key.split("."):
        value = getattr(value, part)
    return value
