"""What a study varies, one axis at a time: loss and tokens/s along it, with everything else equal.

An axis is drawn where at least two of the study's configurations differ in it alone. :data:`AXES` defines them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.analysis.figures.canvas import Drawing, Figures, bars, directed, legend, line, log_axis, panels
from pipeline.analysis.figures.style import BLOCK, MARKERS, SeriesStyle, series_styles
from pipeline.analysis.rows.points import Point, Row
from pipeline.analysis.statistics.tasks import main_task_metrics
from pipeline.base.made_of import made_of
from pipeline.models.embedder_config import LookupKeys, ProjectionKeys
from pipeline.models.token_decoder_config import PrefixKeys, StackKeys
from pipeline.results.metrics import LOSS, Metric, setting_metric, settings_of
from pipeline.study import Cell, Study
from pipeline.study.schema import Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Axis:
    """A part of the model that configurations differ in.

    ``read`` names a configuration's place on it, ``None`` for none; ``keys`` are the variant's keys that it speaks of.
    ``order`` sorts the places, which otherwise stand as the study has them.
    """

    key: str
    label: str
    read: Callable[[Cell, Variant], str | None]
    keys: tuple[str, ...] = ()
    order: Callable[[str], float] | None = None
    speed: bool = True


def _share(allocation: str) -> float:
    block, token = map(int, allocation.split(":"))
    return token / (block + token)


def _prefix(cell: Cell, variant: Variant) -> str | None:
    return str(variant.token_decoder.prefix_length) if isinstance(variant.token_decoder, PrefixKeys) else None


def _local(cell: Cell, variant: Variant) -> str | None:
    decoder = variant.token_decoder
    if not isinstance(decoder, PrefixKeys):
        return None
    return "carried" if decoder.carry else f"{decoder.local}{' mixed' if decoder.mix else ''}"


def _memory(cell: Cell, variant: Variant) -> str | None:
    decoder = variant.token_decoder
    return str(decoder.memory_layers * decoder.memory) if isinstance(decoder, PrefixKeys) else None


def _contexts(cell: Cell, variant: Variant) -> str | None:
    return str(variant.token_decoder.contexts) if isinstance(variant.token_decoder, PrefixKeys) else None


def _before(cell: Cell, variant: Variant) -> str | None:
    keys = variant.embedder
    size = keys.convolution if isinstance(keys, LookupKeys | ProjectionKeys) else 0
    seen = ["block before"] * keys.overlap + [f"convolution {size}"] * bool(size)
    return ", ".join(seen) or "nothing"


def _heads(keys: StackKeys) -> str:
    return str(keys.heads or OWN)


def _layer(cell: Cell, variant: Variant) -> str:
    return OWN if variant.layer is None else variant.layer.kind


def _number(place: str) -> float:
    """Of places that begin with a number, if any."""
    first, *rest = place.split()
    return float(first) + 0.5 * bool(rest) if first.isdigit() else 0


def _start(cell: Cell, variant: Variant) -> str | None:
    return variant.init.method if cell.source and variant.init else "random weights"


def _architecture(cell: Cell, variant: Variant) -> str | None:
    """MEGABYTE's token decoder adds to the context and is narrower than the block decoder (paper, table 4)."""
    token, block = variant.token_decoder, variant.block_decoder
    if token.kind == "summation" and token.width and token.width != block.width:
        return "MEGABYTE"
    return "Block Transformer" if token.kind == "prefix" and token.width == block.width else None


VANILLA = "vanilla"
OWN = "the size's"
AXES = (
    Axis(  # paper, figure 4a
        "block_length",
        "Block length",
        lambda cell, variant: str(cell.block_length),
        order=lambda place: 0 if place == VANILLA else float(place),
    ),
    Axis(  # figures 3a, 3b, 13 to 17
        "allocation",
        "Layers of block to token decoder",
        lambda cell, variant: ":".join(map(str, variant.allocation)),
        ("allocation",),
        _share,
    ),
    Axis("embedder", "Embedder", lambda cell, variant: variant.embedder.kind, ("embedder",)),  # figures 3c, 18
    Axis(  # figures 3f, 19
        "token_decoder",
        "Token decoder",
        lambda cell, variant: variant.token_decoder.kind.replace("_", "-"),
        ("token_decoder.kind", "token_decoder.prefix_length"),
    ),
    Axis("prefix_length", "Prefix length", _prefix, ("token_decoder.prefix_length",), float),  # figures 3f, 19
    Axis(
        "local_context",
        "Tokens before the block that the token decoder sees",
        _local,
        ("token_decoder.local", "token_decoder.mix", "token_decoder.carry"),
        _number,
    ),
    Axis("contexts", "Context embeddings in the prefix", _contexts, ("token_decoder.contexts",), float),  # appendix B.3
    Axis(
        "memory",
        "Numbers that a block leaves for later tokens to look at",
        _memory,
        ("token_decoder.memory", "token_decoder.memory_layers"),
        float,
    ),
    Axis("overlap", "What the embedder sees before the block", _before, ("embedder.overlap", "embedder.convolution")),
    Axis(
        "heads",
        "Heads of the block decoder",
        lambda cell, variant: _heads(variant.block_decoder),
        ("block_decoder.heads",),
        _number,
    ),
    Axis(
        "token_heads",
        "Heads of the token decoder",
        lambda cell, variant: _heads(variant.token_decoder),
        ("token_decoder.heads",),
        _number,
    ),
    Axis("layer", "Kind of layers", _layer, ("layer",)),
    Axis(  # figure 7
        "padding",
        "Random-length padding while training",
        lambda cell, variant: "with" if variant.padding else "without",
        ("padding",),
        speed=False,
    ),
    Axis(  # figures 5a, 21; to duplicate the source's layers is to have more of them
        "uptraining", "Start of training", _start, ("init", "block_decoder.layers", "token_decoder.layers"), speed=False
    ),
    Axis(  # figures 5b, 22
        "architecture", "Architecture", _architecture, ("allocation", "block_decoder", "token_decoder")
    ),
)


@dataclass(frozen=True)
class Sweep:
    """Configurations that differ in one axis alone, by their place on it."""

    size: str
    label: str
    places: dict[str, Point]


def ablation_figures(study: Study, points: list[Point]) -> Figures:
    """A figure for each axis that the study varies: loss, and tokens/s in each setting or else the tasks' scores."""
    for axis in AXES:
        sweeps = sweeps_along(study, points, axis)
        if sweeps:
            yield _draw(axis, sweeps, points)


def _draw(axis: Axis, sweeps: list[Sweep], points: list[Point]) -> tuple[Figure, Drawing]:
    named = list(dict.fromkeys(place for sweep in sweeps for place in sweep.places))
    places = sorted(named, key=axis.order or named.index)
    metrics = _compared([row for sweep in sweeps for point in sweep.places.values() for row in point.rows], axis)
    figure, drawn = panels(len(metrics), share_y=False)
    for axes, metric in zip(drawn, metrics, strict=True):
        for sweep, style in zip(sweeps, _styles(sweeps, points), strict=True):
            along = [(float(at), sweep.places[place]) for at, place in enumerate(places) if place in sweep.places]
            known = [(at, value, point) for at, point in along if (value := metric.of(point)) is not None]
            line(axes, [(at, value) for at, value, _ in known], style, sweep.label)
            bars(
                axes, ((at, value, None, metric.spread(point)) for at, value, point in known), style.colour, sweep.label
            )
        axes.set_xticks(range(len(places)), places)
        axes.set_xlim(-0.4, len(places) - 0.6)
        axes.set_xlabel(axis.label)
        axes.set_ylabel(directed(metric))
        if metric.logarithmic:
            log_axis(axes, "y")
    legend(figure, *drawn)
    return figure, Drawing(f"ablation_{axis.key}", f"By {axis.label.lower()}", _describe(axis, sweeps))


def sweeps_along(study: Study, points: list[Point], axis: Axis) -> list[Sweep]:
    """Where configurations have two places or more on the axis and agree in everything else."""
    groups: dict[tuple[object, ...], dict[str, Point]] = {}
    for point in points:
        cell = point.cell
        place = axis.read(cell, study.variants[cell.variant]) if cell.variant else None
        if place is not None:
            groups.setdefault(_rest(study, point, axis), {}).setdefault(place, point)
    varied = [places for places in groups.values() if len(places) > 1]
    if axis.key == "block_length":
        varied = [_vanilla_of(points, next(iter(places.values()))) | places for places in varied]
    lasts = [list(places.values())[-1] for places in varied]
    labels = _labels(lasts, axis)
    return [Sweep(last.size, label, places) for last, label, places in zip(lasts, labels, varied, strict=True)]


def _rest(study: Study, point: Point, axis: Axis) -> tuple[object, ...]:
    """What must be equal beside the axis."""
    cell = point.cell
    assert cell.variant is not None
    variant = made_of(study.variants[cell.variant])
    for key in axis.keys:
        *outer, last = key.split(".")
        (variant[outer[0]] if outer else variant).pop(last, None)
    length = None if axis.key == "block_length" else cell.block_length
    start = None if axis.key == "uptraining" else cell.source
    return (point.rows[0].attention, cell.size, start, length, repr(variant))


def _vanilla_of(points: list[Point], block: Point) -> dict[str, Point]:
    same = [point for point in points if point.kind == VANILLA and point.size == block.size]
    return {VANILLA: same[0]} if same else {}


def _labels(points: list[Point], axis: Axis) -> list[str]:
    """Size and block length, and the variant where several sweeps share those."""
    lengths = ["" if axis.key == "block_length" else f", L={point.cell.block_length}" for point in points]
    plain = [f"size {point.size}{length}" for point, length in zip(points, lengths, strict=True)]
    return [
        f"{label}, {point.family} {point.cell.variant}" if plain.count(label) > 1 else label
        for label, point in zip(plain, points, strict=True)
    ]


def _compared(rows: list[Row], axis: Axis) -> list[Metric]:
    rates = [setting_metric(setting, "tokens_per_second") for setting in settings_of(rows)] if axis.speed else []
    return [LOSS, *(rates or main_task_metrics(rows))]


def _styles(sweeps: list[Sweep], points: list[Point]) -> list[SeriesStyle]:
    """The colour of the block length that a sweep has, or of block transformers where it has several; a marker each."""
    series = series_styles(points)
    colours = [_colour([series[point.series].colour for point in sweep.places.values()]) for sweep in sweeps]
    markers = [marker for markers in MARKERS.values() for marker in markers]
    turns = [colours[:at].count(colour) for at, colour in enumerate(colours)]
    return [SeriesStyle(colour, markers[turn % len(markers)]) for colour, turn in zip(colours, turns, strict=True)]


def _colour(colours: list[str]) -> str:
    return colours[0] if len(set(colours)) == 1 else BLOCK


def _describe(axis: Axis, sweeps: list[Sweep]) -> str:
    best = []
    for sweep in sweeps:
        known = {place: LOSS.of(point) for place, point in sweep.places.items()}
        losses = {place: loss for place, loss in known.items() if loss is not None}
        if losses:
            best.append(f"{sweep.label}: {min(losses, key=lambda place: losses[place])}")
    return f"Configurations that differ in this alone. {axis.label} with the least loss: {'; '.join(best)}."
