"""A drawn figure as data: what its chart shows is what was drawn."""

from __future__ import annotations

import pytest

from pipeline.analysis.figures.canvas import band, bars, legend, line, log_axis, name_points, panels
from pipeline.analysis.figures.interactive import chart_of
from pipeline.analysis.figures.style import SeriesStyle

LOOK = SeriesStyle("#0072b2", "o")


def test_lines_points_bars_bands_and_names_are_read_with_their_series() -> None:
    figure, (axes,) = panels(1)
    line(axes, [(1.0, 2.0), (10.0, 3.0)], LOOK, "block L=2")
    line(axes, [(5.0, 2.5)], LOOK, "_block L=2", linestyle="none", alpha=0.35)
    axes.plot([1, 10], [2, 3], "--", color="#222222", label="front")
    bars(axes, [(1.0, 2.0, None, 0.5)], LOOK.colour, "block L=2")
    band(axes, [1.0, 10.0], [1.5, 2.5], [2.5, 3.5], LOOK.colour, "block L=2")
    axes.axhline(2.2, color="#222222", label="limit")
    log_axis(axes, "x", [1.0, 10.0])
    name_points(axes, [("small", 1.0, 2.0)])
    axes.set_xlabel("Batch")
    legend(figure, axes)
    made = chart_of(figure)
    (panel,) = made["panels"]
    assert made["series"] == {
        "block L=2": {"colour": "#0072b2", "shape": "circle", "dash": "1 0"},
        "front": {"colour": "#222222", "shape": "stroke", "dash": "6 4"},
        "limit": {"colour": "#222222", "shape": "stroke", "dash": "1 0"},
    }
    points = [(point["s"], point["x"], point["y"], point["o"]) for point in panel["points"]]
    assert points == [("block L=2", 1, 2, 1), ("block L=2", 10, 3, 1), ("block L=2", 5, 2.5, 0.35)]
    paths = {
        path["s"]: [(each["x"], each["y"]) for each in panel["lines"] if each["s"] == path["s"]]
        for path in panel["lines"]
    }
    assert paths["front"] == [(1, 2), (10, 3)]
    assert {y for _, y in paths["limit"]} == {2.2}
    (rule,) = panel["rules"]
    assert (rule["x"], rule["y"], rule["x2"], rule["y2"]) == (1, 1.5, 1, 2.5)
    assert [(each["x"], each["y"], each["y2"]) for each in panel["bands"]] == [(1, 1.5, 2.5), (10, 2.5, 3.5)]
    (text,) = panel["texts"]
    assert (text["t"], text["x"], text["y"], text["beside"]) == ("small", 1, 2, True)
    assert (panel["x"]["title"], panel["x"]["logarithmic"]) == ("Batch", True)
    assert panel["x"]["ticks"] == {"1": "1", "10": "10"}


def test_images_and_bars_are_squares_with_the_names_of_their_places() -> None:
    figure, (axes, other) = panels(2, share_y=False)
    axes.imshow([[0.0, 1.0]], vmin=0, vmax=1, cmap="gray", aspect="auto")
    axes.axvline(0.5, color="#ffffff")
    axes.set_yticks([0], ["vanilla-s"])
    other.barh(["layers", "width"], [0.25, 0.75], color="#0072b2")
    image, shares = chart_of(figure)["panels"]
    assert [(each["x"], each["x2"], each["c"]) for each in image["squares"]] == [
        (-0.5, 0.5, "#000000"),
        (0.5, 1.5, "#ffffff"),
    ]
    assert image["lines"] == []
    assert image["y"]["ticks"] == {"0": "vanilla-s"}
    assert image["y"]["domain"] == [0.5, -0.5]
    assert [each["x2"] for each in shares["squares"]] == pytest.approx([0.25, 0.75], rel=1e-3)
    assert list(shares["y"]["ticks"].values()) == ["layers", "width"]


def test_names_keep_off_each_other_where_there_is_room() -> None:
    _, (axes,) = panels(1)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    name_points(axes, [("first", 0.5, 0.5), ("second", 0.505, 0.5), ("third", 0.5, 0.505)])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])


def test_a_search_s_best_so_far_is_a_stair() -> None:
    figure, (axes,) = panels(1)
    axes.step([0, 2, 3], [3.0, 2.0, 1.0], where="post", color="#0072b2", label="best so far")
    (panel,) = chart_of(figure)["panels"]
    assert [(each["x"], each["y"]) for each in panel["lines"]] == [(0, 3), (2, 3), (2, 2), (3, 2), (3, 1)]
