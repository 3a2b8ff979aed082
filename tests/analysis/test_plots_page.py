"""The page of `dvc plots show`, with this repository's template: it draws without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.analysis.page.vega import write_library
from tests.browser import chromium

ROWS = [{"cell": "a", "tokens": str(1000 * step), "validation_loss": str(6 - step)} for step in range(1, 4)]


@pytest.mark.slow
def test_dvcs_page_draws_its_plots_without_a_network(root: Path, tmp_path: Path) -> None:
    from dvc_render.html import render_html
    from dvc_render.vega import VegaRenderer

    template = json.loads((root / ".dvc/plots/cells.json").read_text(encoding="utf-8"))
    renderer = VegaRenderer(ROWS, "curves", x="tokens", y="validation_loss", template=None)
    renderer.template.content = json.dumps(template)
    page = tmp_path / "index.html"
    render_html([renderer], page, html_template=root / ".dvc/plots/page.html")
    with chromium() as browser:
        assert drawn(browser, page) == [0, "undefined"], "neither Vega nor a network"
        write_library(tmp_path / "vega.js")
        assert drawn(browser, page) == [1, "function"]


def drawn(browser: Any, page: Path) -> list[Any]:
    """How many plots the page has drawn in the end, and what ``vegaEmbed`` is; requests to the network are refused."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
    browser.get(page.as_uri())
    browser.implicitly_wait(5)
    found = browser.find_elements("css selector", "canvas, svg.marks")
    return [len(found), browser.execute_script("return typeof vegaEmbed")]
