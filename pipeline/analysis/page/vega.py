"""Vega-Lite for the page: each mark's layer, made by Altair, and the library itself, which no network is needed for."""

from __future__ import annotations

import base64
import gzip
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.files import replacing, write_text

HIGHLIGHTED = "!length(on) || indexof(on, datum.s) >= 0"
"""``on`` is the chart's parameter that lists the series to highlight: all of them where it is empty."""
FAINT = 0.08
ZOOM = "wheel![event.ctrlKey]"
"""A wheel alone scrolls the page; two fingers that spread arrive as a wheel with Ctrl."""


@cache
def layers() -> dict[str, Any]:
    """The layer of each mark of a panel, without data, scales and titles; and ``zoom``, a panel's selection.

    Their fields are those of :class:`pipeline.analysis.figures.interactive.Panel`.
    """
    import altair as alt

    place = {"x": alt.X("x:Q"), "y": alt.Y("y:Q")}
    box = place | {"x2": alt.X2("x2"), "y2": alt.Y2("y2")}
    plain: dict[str, Any] = {"scale": None, "legend": None}
    series = {
        "color": alt.Color("s:N", legend=alt.Legend(title=None, labelLimit=400)),
        "opacity": alt.condition(HIGHLIGHTED, alt.Opacity("o:Q", **plain), alt.value(FAINT)),
    }
    shape = alt.Shape("s:N", legend=alt.Legend(title=None, labelLimit=400))
    told = {"tooltip": alt.Tooltip("tip:N"), "description": alt.Description("l:N")}
    path = {
        "detail": alt.Detail("k:N"),
        "order": alt.Order("i:Q"),
        "strokeDash": alt.StrokeDash("d:N", **plain),
        "strokeWidth": alt.StrokeWidth("w:Q", **plain),
    }
    offset: dict[str, Any] = {"dx": alt.expr("datum.dx"), "dy": alt.expr("datum.dy"), "align": alt.expr("datum.a")}
    made = {
        "squares": _layer("rect", **box, color=alt.Color("c:N", **plain)),
        "bands": _layer("area", **place, **series, y2=alt.Y2("y2"), detail=alt.Detail("k:N")),
        "lines": _layer("line", **place, **series, **path),
        "rules": _layer("rule", **box, **series),
        "points": _layer(alt.MarkDef("point", filled=True, size=75), **place, **series, shape=shape, **told),
        "texts": _layer(
            alt.MarkDef("text", fontSize=11, **offset), **place, text=alt.Text("t:N"), color=alt.Color("c:N", **plain)
        ),
    }
    zoom: Any = alt.selection_interval(name="zoom", bind="scales", zoom=ZOOM).param
    return made | {"zoom": zoom.to_dict()}


def _layer(mark: Any, **encoding: Any) -> dict[str, Any]:
    import altair as alt

    made = alt.Chart(alt.NamedData("data"), mark=mark).encode(**encoding).to_dict()
    return {"mark": made["mark"], "encoding": made["encoding"]}


def write_library(path: Path) -> None:
    """Write Vega, Vega-Lite and vega-embed as a script for other pages, such as that of `dvc plots show`."""
    write_text(path, f"(() => {{\n{gzip.decompress(base64.b64decode(library())).decode()}\n}})();\n")


def packed(text: str) -> str:
    """Compressed, for a page that unpacks it: base64 of gzip."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, packed; made once per version and user, as it takes seconds."""
    import vl_convert

    made_by: Any = vl_convert  # whose types are not those of its functions
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "blockscale"
    path = folder / f"vega-{made_by.__version__}.js.gz.txt"
    with suppress(OSError):
        return path.read_text(encoding="ascii")
    made = packed(made_by.javascript_bundle())
    with suppress(OSError, UserError), replacing(path) as temporary:
        temporary.write_text(made, encoding="ascii")
    return made
