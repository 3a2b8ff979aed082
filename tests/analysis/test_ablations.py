"""Axes that a study varies are found where everything else is equal, and drawn in their order."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from matplotlib import rc_context
from synthetic import study_file, write_results

from pipeline.analysis.figures.ablations import AXES, ablation_figures, sweeps_along
from pipeline.analysis.figures.canvas import save
from pipeline.analysis.figures.style import RC
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Point, points
from pipeline.models.embedder_config import LookupKeys, RobertaKeys
from pipeline.models.stack_config import LlamaKeys
from pipeline.models.token_decoder_config import BlockDecoderKeys, PrefixKeys, SummationKeys
from pipeline.study import Study
from pipeline.study.schema import UptrainedGrid, Uptraining, Variant

VARIANTS = {
    "base": Variant(),
    "deep": Variant(allocation=[5, 1]),
    "flat": Variant(allocation=[1, 5]),
    "roberta": Variant(embedder=RobertaKeys(width=64)),
    "sum": Variant(token_decoder=SummationKeys()),
    "prefix4": Variant(token_decoder=PrefixKeys(prefix_length=4)),
    "unpadded": Variant(padding=False),
    "megabyte": Variant(allocation=[3, 1], token_decoder=SummationKeys(width=64)),
    "local": Variant(token_decoder=PrefixKeys(local=4)),
    "mixed": Variant(token_decoder=PrefixKeys(local=4, mix=True)),
    "contexts": Variant(token_decoder=PrefixKeys(contexts=2)),
    "memory": Variant(token_decoder=PrefixKeys(memory=64, memory_layers=2)),
    "overlap": Variant(embedder=LookupKeys(overlap=True, convolution=3)),
    "few_heads": Variant(block_decoder=BlockDecoderKeys(heads=2)),
    "many_heads": Variant(token_decoder=PrefixKeys(heads=8)),
    "llama": Variant(layer=LlamaKeys()),
    "other": Variant(allocation=[2, 1], embedder=RobertaKeys()),
}


UPTRAINED = {
    "partition": Variant(init=Uptraining("partition")),
    "duplicate": Variant(
        init=Uptraining("duplicate"),
        block_decoder=BlockDecoderKeys(layers=6),
        token_decoder=PrefixKeys(layers=6),
    ),
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """One size, block lengths 2 and 4, and variants that each differ from the base in one thing; one in two.

    Two more are uptrained at block length 4.
    """
    monkeypatch.chdir(tmp_path)
    made = study_file(tmp_path, {"s": (6, 128)}, [2, 4], variants=list(VARIANTS))
    uptrained = UptrainedGrid(source=["vanilla-s-0"], block_length=[4], variant=list(UPTRAINED))
    grid = dataclasses.replace(made.grid, uptrained=uptrained)
    made = dataclasses.replace(made, variants=VARIANTS | UPTRAINED, grid=grid)
    write_results(made)
    return made


def places(study: Study) -> dict[str, dict[str, list[str]]]:
    """Of every axis, the places of each of its sweeps, by its label."""
    compared = points(load_rows(study)[0])
    sweeps = {axis.key: sweeps_along(study, compared, axis) for axis in AXES}
    return {key: {sweep.label: list(sweep.places) for sweep in along} for key, along in sweeps.items()}


def test_a_sweep_holds_what_differs_in_its_axis_alone(study: Study) -> None:
    along, both = places(study), ("size s, L=2", "size s, L=4")
    assert along["allocation"] == {label: ["1:1", "5:1", "1:5"] for label in both}
    assert along["embedder"] == {label: ["lookup", "roberta"] for label in both}
    assert along["token_decoder"] == {label: ["prefix", "summation"] for label in both}
    assert along["prefix_length"] == {label: ["2", "4"] for label in both}
    assert along["local_context"] == {label: ["0", "4", "4 mixed"] for label in both}
    assert along["contexts"] == {label: ["1", "2"] for label in both}
    assert along["memory"] == {label: ["0", "128"] for label in both}
    assert along["overlap"] == {label: ["nothing", "block before, convolution 3"] for label in both}
    assert along["heads"] == {label: ["the size's", "2"] for label in both}
    assert along["token_heads"] == {label: ["the size's", "8"] for label in both}
    assert along["layer"] == {label: ["the size's", "llama"] for label in both}
    assert along["padding"] == {label: ["with", "without"] for label in both}
    assert along["uptraining"] == {"size s, L=4": ["random weights", "partition", "duplicate"]}
    assert along["architecture"] == {label: ["Block Transformer", "MEGABYTE"] for label in both}
    lengths = along["block_length"]
    assert lengths["size s, block base"] == ["vanilla", "2", "4"]
    assert len(lengths) == len(VARIANTS)


def test_every_axis_that_varies_has_a_figure_that_names_its_best(study: Study, tmp_path: Path) -> None:
    compared = points(load_rows(study)[0])
    with rc_context(RC):
        figures = {drawing.name: (figure, drawing) for figure, drawing in ablation_figures(study, compared)}
        drawn = save(*figures["ablation_allocation"], tmp_path)
    assert {f"ablation_{axis.key}" for axis in AXES} <= figures.keys()
    losses = {point.name: loss_of(point) for point in compared}
    best = min(("base", "deep", "flat"), key=lambda variant: losses[f"block-s-4-{variant}"])
    place = ":".join(map(str, VARIANTS[best].allocation))
    assert f"size s, L=4: {place}" in drawn.description
    text = (tmp_path / "ablation_allocation.svg").read_text()
    assert text.index(">5:1<") < text.index(">1:1<") < text.index(">1:5<")


def test_an_axis_on_which_nothing_differs_has_none(study: Study) -> None:
    block = dataclasses.replace(study.grid.block, variant=["base"])
    grid = dataclasses.replace(study.grid, block=block, uptrained=UptrainedGrid())
    alone = dataclasses.replace(study, grid=grid)
    assert [key for key, sweeps in places(alone).items() if sweeps] == ["block_length"]


def loss_of(point: Point) -> float:
    return sum(row.evaluate.loss for row in point.rows) / len(point.rows)
