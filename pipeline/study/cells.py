"""The grid's cells: one model each, with the one spelling of its name, its architecture and its fingerprint."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.base.errors import UserError
from pipeline.models.architecture import block_config, vanilla_config
from pipeline.models.config import ModelConfig
from pipeline.results.records import STAGES, CellIdentity
from pipeline.study.schema import Study


@dataclass(frozen=True)
class Cell:
    """One model of the study, trained once.

    ``family`` is ``vanilla``, ``block``, or ``pretrained`` for a model trained elsewhere, whose ``size`` is its name.
    ``block_length`` and ``variant`` are set for block cells alone. ``source`` is the cell whose weights an uptrained
    cell starts from; its ``size`` is then the source's. ``budget``: the tokens of a cell that ends its training before
    the others, one of ``pretrain.budgets``.
    """

    family: str
    size: str
    seed: int = 0
    block_length: int | None = None
    variant: str | None = None
    source: str | None = None
    budget: int | None = None

    @property
    def name(self) -> str:
        """The DVC item, the results file and the MLflow run: axis values joined as DVC joins them."""
        if self.family == "pretrained":
            return self.size
        return _joined(self.model, self.seed, self.budget)

    @property
    def model(self) -> str:
        """What ``recipes`` calls it: the name that its seeds and budgets share."""
        return _joined(self.family, self.source or self.size, self.block_length, self.variant)

    def identity(self, fingerprint: str) -> CellIdentity:
        """Who the results about weights of that ``fingerprint`` are about."""
        axes = (self.family, self.size, self.seed, self.block_length, self.variant)
        return CellIdentity(self.name, *axes, fingerprint, self.budget)

    @property
    def whole(self) -> Cell:
        """The cell without its budget."""
        return replace(self, budget=None)

    @property
    def stages(self) -> list[str]:
        """The stages that write a result about it: speed is the same for all budgets, and measured once."""
        return [stage for stage in STAGES if stage != "benchmark" or self.budget is None]


def _joined(*axes: str | int | None) -> str:
    return "-".join(str(value) for value in axes if value is not None)


def cells(study: Study) -> list[Cell]:
    """Every cell of the study: the whole ones, then for each that is trained one of each budget, from the smallest."""
    whole, budgets = whole_cells(study), sorted(study.pretrain.budgets)
    trained = [cell for cell in whole if cell.family != "pretrained"]
    return whole + [replace(cell, budget=budget) for cell in trained for budget in budgets]


def whole_cells(study: Study) -> list[Cell]:
    """The cells without a budget: models trained elsewhere, then the grid's vanilla, block and uptrained cells."""
    elsewhere = [Cell("pretrained", name) for name in study.pretrained]
    return elsewhere + _vanilla_cells(study) + _block_cells(study) + _uptrained_cells(study)


def _vanilla_cells(study: Study) -> list[Cell]:
    return [Cell("vanilla", size, seed) for size in study.grid.vanilla.size for seed in study.grid.seed]


def _block_cells(study: Study) -> list[Cell]:
    grid = study.grid
    return [
        Cell("block", size, seed, block_length, variant)
        for size in grid.block.size
        for block_length in grid.block.block_length
        for variant in grid.block.variant
        for seed in grid.seed
    ]


def _uptrained_cells(study: Study) -> list[Cell]:
    grid = study.grid
    sizes = {cell.name: cell.size for cell in _vanilla_cells(study)}
    sizes |= {name: model.size for name, model in study.pretrained.items() if model.size}
    return [
        Cell("block", sizes.get(source, source), seed, block_length, variant, source)
        for source in grid.uptrained.source
        for block_length in grid.uptrained.block_length
        for variant in grid.uptrained.variant
        for seed in grid.seed
    ]


def find_cell(study: Study, name: str) -> Cell:
    """The cell of that name. Raises :class:`UserError` naming the study's cells."""
    known = {cell.name: cell for cell in cells(study)}
    if name not in known:
        raise UserError(f"cell {name!r} is not in the study's grid; its cells are {', '.join(known)}")
    return known[name]


def model_config(study: Study, cell: Cell, vocabulary: int) -> ModelConfig:
    """The cell's architecture for a vocabulary of that many tokens, padding included.

    A model trained elsewhere brings its own; its checkpoint tells it.
    Raises :class:`UserError` where size, variant and block length do not fit together.
    """
    assert cell.family != "pretrained"
    size = study.sizes[cell.size]
    context_length = study.pretrain.context_length
    try:
        if cell.family == "vanilla":
            return vanilla_config(size, vocabulary, context_length)
        assert cell.block_length is not None
        assert cell.variant is not None
        return block_config(size, study.variants[cell.variant], cell.block_length, vocabulary, context_length)
    except ValueError as error:
        raise UserError(f"cell {cell.name}: {error}") from None
