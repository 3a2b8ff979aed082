"""What every cell of a study will cost, before anything runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, TextIO

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.files import read_object
from pipeline.data import Manifest, model_vocabulary
from pipeline.execution.estimate import Left, Rates, Work, time_of
from pipeline.execution.noted import stages_up_to_date
from pipeline.execution.stages import stage_of
from pipeline.execution.timings import rates_here
from pipeline.models import costs
from pipeline.models.config import ModelConfig, from_dict
from pipeline.study import Cell, Study, cells, model_config, pretraining
from pipeline.study.causes import training_record, trunk_mark
from pipeline.study.pretraining import flat, origin, training_steps
from pipeline.study.recipe import OPTIMIZERS, idle_keys
from pipeline.study.schema import Tuning
from pipeline.study.superseded import changes, kept_like, mark, training_in
from pipeline.study.trunks import Trunk, trunk_steps
from pipeline.study.tune_space import tuning_of
from pipeline.study.waypoints import again_for, lacking

UNKNOWN = "how long that takes is known once a cell has run on this machine"


@dataclass(frozen=True)
class RecipeKey:
    """A key of ``pretrain`` that a cell has from ``place``, such as ``recipes.vanilla-s``; ``how`` it was found."""

    key: str
    value: Any
    place: str
    how: str


@dataclass(frozen=True)
class CellPlan:
    """A cell's cost. Memory in bytes: ``training_memory`` is an estimate for one sequence a forward pass.

    ``kv_bytes_per_token`` is for 2-byte keys and values. ``done`` lists the stages whose results are on disk.
    ``training`` is ``new``, ``complete``, ``half``, ``again`` or ``back``; ``why`` says the rest in words: how far it
    came, what an edit has changed since, what is kept aside. ``training_flops`` are those of the whole run,
    ``flops_to_go`` those that are left of it; a budget's leave out the trunk if the whole cell is still to train it.
    ``to_go`` are its stages that are out of date, as far as the stage `check` has seen the study's edits; ``time`` is
    what all of them take on this machine from the start, ``None`` where no stage that has run tells.
    ``recipe`` are the keys of ``pretrain`` that its size, its variant or its model decides.
    """

    cell: str
    family: str
    parameters: dict[str, int]
    embedding_parameters: int
    non_embedding_parameters: int
    total_parameters: int
    tokens: int
    steps: int
    training_flops: float
    flops_to_go: float
    kv_bytes_per_token: float
    training_memory: int
    checkpoint: str
    done: list[str]
    training: str
    why: str
    to_go: list[str]
    time: Left | None
    recipe: list[RecipeKey]


def plan(study: Study, some: Iterable[Cell] | None = None) -> list[CellPlan]:
    """The plan of every cell, or of ``some``. Raises :class:`UserError`, also for a model that is not imported yet."""
    vocabulary, current, rates = model_vocabulary(study.tokenize), stages_up_to_date(study), rates_here()
    return [_plan(study, cell, vocabulary, current, rates) for cell in (cells(study) if some is None else some)]


def time_to_go(planned: list[CellPlan]) -> Left | None:
    """How long the stages that are out of date take on this machine, one after the other; ``None``: nothing tells."""
    evaluate, benchmark = ([0.0] * sum(kind in entry.to_go for entry in planned) for kind in ("evaluate", "benchmark"))
    return time_of(Work(sum(entry.flops_to_go for entry in planned), evaluate, benchmark), rates_here())


def print_plan(planned: list[CellPlan], file: TextIO) -> None:
    """The plan as a table."""
    header = ("cell", "embedding", "embedder", "block dec.", "token dec.", "head", "non-emb.", "total",
              "tokens", "train FLOPs", "minutes", "KV B/token", "memory", "done")  # fmt: skip
    rows = [_row(entry) for entry in planned]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        columns = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *columns]), file=file)
    print(file=file)
    for entry in planned:
        if entry.recipe:
            print(f"{entry.cell}: {_recipe_line(entry.recipe)}", file=file)
        if entry.why:
            print(f"{entry.cell}: {entry.why}", file=file)
    flops, left = sum(entry.flops_to_go for entry in planned), time_to_go(planned)
    known = f"; {UNKNOWN}" if left is None else f" ({left} on this machine)" if left.seconds >= 1 else ""
    print(
        f"{len(planned)} cells, {flops:.2g} training FLOPs to go{known}; checkpoints in {paths.checkpoint('CELL')}",
        file=file,
    )


def print_json(planned: list[CellPlan], file: TextIO) -> None:
    """The plan as a JSON list, an object per cell."""
    json.dump([dataclasses.asdict(entry) for entry in planned], file, indent=2)
    print(file=file)


def _plan(study: Study, cell: Cell, vocabulary: int, current: Collection[str], rates: Rates) -> CellPlan:
    config = _architecture(study, cell, vocabulary)
    trained = cell.family != "pretrained"
    pretrain = pretraining(study, cell) if trained else study.pretrain
    steps, optimizer = training_steps(pretrain) if trained else 0, OPTIMIZERS[pretrain.optimizer]
    tokens = steps * pretrain.batch_size * pretrain.context_length
    training, why, begun = _training(study, cell, config) if trained else ("elsewhere", "", 0)
    ready = training in ("elsewhere", "complete")
    flops = tokens * costs.training_flops_per_token(config)
    total, non_embedding = costs.total_parameters(config), costs.non_embedding_parameters(config)
    return CellPlan(
        cell=cell.name,
        family=config.family,
        parameters=costs.parameters(config),
        embedding_parameters=total - non_embedding,
        non_embedding_parameters=non_embedding,
        total_parameters=total,
        tokens=tokens,
        steps=steps,
        training_flops=flops,
        flops_to_go=(steps - begun) / max(steps, 1) * flops,
        kv_bytes_per_token=costs.kv_bytes_per_token(config),
        training_memory=costs.training_memory(config, optimizer.matrix_moments, optimizer.other_moments),
        checkpoint=str(paths.checkpoint(cell.name)),
        done=[stage for stage in cell.stages if paths.result(stage, cell.name).exists()],
        training=training,
        why=why,
        to_go=[kind for kind in cell.stages if not ready or stage_of(cell, kind) not in current],
        time=time_of(Work(flops, [0.0], [0.0] if "benchmark" in cell.stages else []), rates),
        recipe=_recipe(study, cell) if trained else [],
    )


def _recipe(study: Study, cell: Cell) -> list[RecipeKey]:
    """The keys that something but ``pretrain`` decides, but for those that the cell's own choices leave unread."""
    pretrain = pretraining(study, cell)
    unread = {*idle_keys(pretrain), *(["tokens"] if cell.budget is not None else [])}
    how = {f"recipes.{cell.model}": _how(tuning_of(study, cell))}
    keys = []
    for key, value in flat(pretrain).items():
        place = origin(study, cell, key).removesuffix(f".{key}")
        if place != "pretrain" and key not in unread:
            keys.append(RecipeKey(key, value, place, how.get(place, "")))
    return keys


def _how(tuning: Tuning | None) -> str:
    """How a recipe was found, in words."""
    if tuning is None:
        return ""
    of = "" if tuning.status.startswith("tuned") else f" from {', '.join(tuning.of)}"
    edge = f", at the edge: {', '.join(tuning.at_edge)}" if tuning.at_edge else ""
    return f"{tuning.status}{of} on {tuning.tokens:,} tokens, {tuning.trials} trials{edge}"


def _recipe_line(recipe: list[RecipeKey]) -> str:
    """The keys of each place, and the place."""
    places: dict[str, list[str]] = {}
    for key in recipe:
        place = f"{key.place}, {key.how}" if key.how else key.place
        places.setdefault(place, []).append(f"{key.key} {_written(key.value)}")
    return "; ".join(f"{', '.join(keys)} ({place})" for place, keys in places.items())


def _written(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)


def _training(study: Study, cell: Cell, config: ModelConfig) -> tuple[str, str, int]:
    """What pretraining the cell will do with what it finds in its folder and aside, and the steps that are done."""
    present, corpus = training_in(paths.checkpoint(cell.name)), _tokens()
    tokens = corpus or (present.record.get("corpus") if present else None) or ""
    record, steps = training_record(study, cell, config, tokens), _steps(study, cell)
    aside = kept_like(cell.name, record)
    if present is not None and mark(present.record) == mark(record):
        lost = lacking(study, cell, present.folder, present.step)
        if lost:
            return "again", again_for(lost), 0
        if present.complete:
            return "complete", "", steps
        if present.step:
            return "half", f"goes on after {present.step:,} of {steps:,} steps", present.step
        present = None
    changed = f"changed: {changes(present.record, record)}; " if present is not None else ""
    if aside is not None:
        why = f"{changed}the training with these keys and this code comes back ({aside.progress})"
        return "back", why, steps if aside.complete else aside.step
    begun, beginning = _beginning(study, cell, Trunk.of(cell, trunk_mark(study, cell, config, record)))
    if present is None or not present.step:
        return "new", beginning, begun
    kept = f"{changed}trains again; the training so far ({present.progress}) will be kept aside"
    return "again", "; ".join(part for part in (kept, beginning) if part), begun


def _beginning(study: Study, cell: Cell, trunk: Trunk) -> tuple[int, str]:
    """The steps of its trunk that the cell needn't train, since their state is kept or the whole cell is to train them.

    The words are for a state.
    """
    last = trunk_steps(pretraining(study, cell))
    folder = paths.checkpoint(cell.name)
    usable = (step for step in trunk.steps if step <= last and not lacking(study, cell, folder, step))
    kept = max(usable, default=0)
    if kept:
        return kept, f"begins after {kept:,} of {_steps(study, cell):,} steps, with {trunk.state(kept)}"
    shared = cell.budget is not None and not paths.result("pretrain", cell.whole.name).exists()
    return (last if shared else 0), ""


def _tokens() -> str | None:
    """The hash of the tokens there are. An edit of corpus or tokenizer shows once they have been made anew."""
    return Manifest.read(paths.TOKENS).hash if (paths.TOKENS / "manifest.json").exists() else None


def _steps(study: Study, cell: Cell) -> int:
    return training_steps(pretraining(study, cell))


def _architecture(study: Study, cell: Cell, vocabulary: int) -> ModelConfig:
    if cell.family != "pretrained":
        return model_config(study, cell, vocabulary)
    path = paths.checkpoint(cell.name) / "config.json"
    if not path.exists():
        raise UserError(
            f"pretrained.{cell.name}: run `dvc repro pretrained@{cell.name}` first; its files tell its shape"
        )
    try:
        return from_dict(read_object(path)["model"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: no model configuration ({error})") from None


def _row(entry: CellPlan) -> tuple[str, ...]:
    groups = (entry.parameters[group] for group in costs.GROUPS)
    return (
        entry.cell,
        *(_short(count) for count in groups),
        _short(entry.non_embedding_parameters),
        _short(entry.total_parameters),
        _short(entry.tokens),
        f"{entry.training_flops:.2g}",
        _minutes(entry.time),
        f"{entry.kv_bytes_per_token:,.0f}",
        _short(entry.training_memory) + "B",
        " ".join(entry.done) or "-",
    )


def _minutes(time: Left | None) -> str:
    return "-" if time is None else f"{'>' if time.at_least else ''}{time.seconds / 60:.3g}"


def _short(value: float) -> str:
    for unit in ("", "K", "M", "G"):
        if value < 1000 or unit == "G":
            return f"{value:.3g}{unit}" if value < 1000 else f"{value:,.0f}{unit}"
        value /= 1000
    raise AssertionError
