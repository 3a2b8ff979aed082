"""The page, read as text and in headless Chromium where one is installed."""

from __future__ import annotations

import base64
import gzip
import html.parser
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic import HOSTILE

from pipeline.analysis.page.vega import packed
from tests.browser import chromium

Open = Callable[..., Any]


class Outline(html.parser.HTMLParser):
    """What the page refers to, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_needs_no_network_and_describes_its_images(hostile: Path) -> None:
    page = Outline((hostile / "index.html").read_text())
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []
    assert all(len(image["alt"] or "") > 20 for image in page.of("img"))
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert {link[1:] for link in page.links if link.startswith("#")} <= targets
    assert all(head.get("scope") in ("col", "row") for head in page.of("th"))


def test_text_from_results_is_escaped(hostile: Path) -> None:
    text = (hostile / "index.html").read_text()
    assert HOSTILE not in text
    assert len(Outline(text).of("script")) == 4


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def opened(browser: Any, hostile: Path) -> Iterator[Open]:
    """Opens the page, at a width, in light or dark, with scripts or without, and waits for its plot."""

    def load(
        fragment: str = "", width: int = 1400, scheme: str = "light", scripts: bool = True, folder: Path = hostile
    ) -> Any:
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get("about:blank")
        browser.get(f"file://{folder}/index.html{fragment}")
        if scripts:
            wait(browser, "return document.querySelector('#plot [data-drawn]') !== null")
        return browser

    yield load
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def wait(browser: Any, script: str) -> None:
    deadline = time.monotonic() + 60
    while not browser.execute_script(script):
        assert time.monotonic() < deadline, script
        time.sleep(0.05)


def marks(browser: Any) -> dict[str, bool]:
    """Each point of the plot, and whether it is drawn as one that others beat."""
    script = """return Object.fromEntries([...document.querySelectorAll("#plot .mark")].map(
        (mark) => [mark.dataset.point, mark.classList.contains("beaten")]))"""
    found: dict[str, bool] = browser.execute_script(script)
    return found


def press(browser: Any, selector: str) -> None:
    """A click as a user's, after which the plot may be drawn anew."""
    before = browser.execute_script("return document.querySelector('#plot .drawing').dataset.drawn")
    browser.find_element("css selector", selector).click()
    if "#families" in selector or "#settings" in selector or "#beaten" in selector:
        wait(browser, f"return document.querySelector('#plot .drawing').dataset.drawn !== '{before}'")


def test_without_scripts_pictures_and_table_remain(opened: Open, hostile: Path) -> None:
    page = opened(scripts=False)
    shown = [image for image in page.find_elements("css selector", "img") if image.is_displayed()]
    elsewhere = page.find_element("css selector", "#figures").text.count(" beside this page")
    assert elsewhere < len(shown)
    assert len(shown) + elsewhere == len(list((hostile / "figures").glob("*.svg")))
    assert [each for each in page.find_elements("css selector", ".scripted") if each.is_displayed()] == []
    names = {path.stem for path in (hostile / "metrics").iterdir()}
    rows = page.find_elements("css selector", ".sortable tbody th")
    assert {row.text for row in rows} == names


def test_a_family_s_beaten_points_are_faint_and_keep_their_hue(opened: Open) -> None:
    page = opened()
    assert marks(page) == {
        "pythia": False,
        "vanilla-s": False,
        "vanilla-m": False,
        "vanilla-s by transformers generate": False,
        "vanilla-m by transformers generate": False,
        "block-s-2-base": True,
        "block-s-4-base": False,
        "block-m-2-base": False,
        "block-m-4-base": False,
        "block-vanilla-s-0-4-up": False,
    }
    script = "return ['block-s-2-base', 'block-m-2-base'].map((n) => document.querySelector(`[data-point='${n}']`))"
    faint, full = page.execute_script(script)
    assert faint.value_of_css_property("fill") == full.value_of_css_property("fill")
    assert float(faint.get_attribute("opacity")) < 0.5 < float(full.get_attribute("opacity") or 1)


def test_the_address_chooses_axes_and_families(opened: Open) -> None:
    hidden = "hide=vanilla;pretrained;vanilla,+transformers+generate"
    page = opened(f"#x=non_embedding_parameters&y=bits_per_byte&{hidden}&front=1&on=block+L%3D2")
    assert set(marks(page)) == {"block-s-2-base", "block-m-2-base", "block-vanilla-s-0-4-up"}
    assert page.find_element("id", "x").get_attribute("value") == "non_embedding_parameters"
    assert "Bits per byte" in page.find_element("id", "plot").text
    (pressed,) = page.find_elements("css selector", '#plot [aria-pressed="true"]')
    assert pressed.text == "block L=2"


def test_the_legend_has_every_series_and_highlights(opened: Open) -> None:
    page = opened()
    entries = {entry.text for entry in page.find_elements("css selector", "#plot .legend button")}
    assert entries >= {
        "vanilla",
        "vanilla front",
        "block front",
        "block L=2",
        "block L=4",
        "uptrained L=4",
        "pretrained",
    }
    press(page, '#plot .legend [data-series="block L=4"]')
    opacity = """return Object.fromEntries([...document.querySelectorAll("#plot .mark")].map(
        (mark) => [mark.dataset.point, Number(mark.getAttribute("opacity") ?? 1)]))"""
    told = page.execute_script(opacity)
    assert {name for name, value in told.items() if value > 0.5} == {"block-s-4-base", "block-m-4-base"}
    assert "on=block+L%3D4" in page.current_url
    press(page, '#plot .legend [data-series="block L=4"]')
    page.execute_script("document.activeElement.blur()")
    assert sum(value > 0.5 for value in page.execute_script(opacity).values()) == len(told) - 1


def test_points_are_reached_by_keyboard_and_say_what_they_are(opened: Open) -> None:
    page = opened()
    page.execute_script("""document.querySelector('#plot [data-point="vanilla-m"]').focus()""")
    detail = page.find_element("id", "detail").text
    assert detail.startswith("vanilla-m (vanilla, size m). ")
    assert HOSTILE in detail


def test_families_and_settings_are_chosen_by_a_click(opened: Open) -> None:
    page = opened()
    press(page, '#families input[value="block"]')
    assert set(marks(page)) >= {"pythia", "vanilla-s", "vanilla-m", "block-vanilla-s-0-4-up"}
    assert [name for name in marks(page) if name.startswith(("block-s", "block-m"))] == []
    assert "hide=block" in page.current_url
    press(page, '#settings input[value="prefill_heavy"]')
    axes = [page.find_element("id", axis).get_attribute("value") for axis in ("x", "y")]
    assert axes == ["prefill_heavy_tokens_per_second", "loss"]


@pytest.mark.parametrize(("share", "beyond"), [(0.9, False), (1.2, True)])
def test_error_bars_end_inside_the_frame_or_leave_it(
    opened: Open, hostile: Path, tmp_path: Path, share: float, beyond: bool
) -> None:
    """Of a model whose rate spreads by that share: a logarithmic axis has no place for less than 0."""
    text = (hostile / "index.html").read_text()
    (before,) = re.findall(r'id="data">(.*?)</script>', text)
    data = json.loads(gzip.decompress(base64.b64decode(before)))
    point = data["points"][0]
    point["spread"] = {key: share * point["values"][key] for key in (data["x"], data["y"])}
    (tmp_path / "index.html").write_text(text.replace(before, packed(json.dumps(data))))
    script = """return [...document.querySelectorAll("#plot .role-mark.mark-rule line")].map(({ __data__: bar }) =>
        [bar.x, bar.x2, bar.mark.group.width, bar.y, bar.y2, bar.mark.group.height])"""
    bars = opened(folder=tmp_path).execute_script(script)
    assert max(bar[1] - bar[0] for bar in bars) > 100
    assert max(bar[3] - bar[4] for bar in bars) > 100
    assert [bar for bar in bars if not bar[0] <= bar[1] <= bar[2] or not 0 <= bar[4] <= bar[3] <= bar[5]] == []
    assert (min(bar[0] for bar in bars) < 0) == beyond


def test_the_table_has_eight_columns_until_asked_for_all_and_sorts(opened: Open) -> None:
    page = opened()

    def shown() -> list[str]:
        heads = "[...document.querySelectorAll('.sortable thead th')].filter((head) => head.offsetWidth)"
        found: list[str] = page.execute_script(f"return {heads}.map((head) => head.innerText)")
        return found

    assert len(shown()) == 8
    assert shown()[0].startswith("cell")
    every = len(page.find_elements("css selector", ".sortable thead th"))
    page.find_element("css selector", "#chosen").click()
    page.find_element("id", "every").click()
    assert len(shown()) == every > 20
    assert page.find_element("id", "chosen").text == f"{every} of {every} columns"
    page.find_element("id", "every").click()
    column = next(at for at, head in enumerate(shown()) if head.startswith("Loss"))
    head = [each for each in page.find_elements("css selector", ".sortable thead th") if each.is_displayed()][column]
    for order in ("ascending", "descending"):
        head.find_element("css selector", "button").click()
        read = (
            "return [...arguments[0].closest('table').tBodies[0].rows].map((row) => row.cells[arguments[0].cellIndex]"
        )
        losses = page.execute_script(f"{read}.dataset.value).map(Number)", head)
        assert losses == sorted(losses, reverse=order == "descending")
        assert head.get_attribute("aria-sort") == order


def test_the_first_screen_holds_headline_plot_and_caveats(opened: Open) -> None:
    page = opened()
    assert page.title.startswith("How fast do block transformers generate at equal loss?")
    for selector in ("h1", ".headline", "#plot svg.marks", ".notes"):
        box = page.find_element("css selector", selector).rect
        assert box["height"] > 20
        assert box["y"] + min(box["height"], 600) <= 900, selector


CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 28)")])
def test_text_and_marks_stand_out_in_light_and_dark(opened: Open, scheme: str, paper: str) -> None:
    """WCAG 2 AA: text 4.5:1, graphics 3:1, a label for every control."""
    count, failures, found = opened(scheme=scheme).execute_script(f"let answer; {CONTRAST}; return answer")
    assert count > 50
    assert failures == []
    assert found == paper


STRUCTURE = (Path(__file__).parent / "structure.js").read_text(encoding="utf-8")


def test_everything_has_a_name_and_answers_to_the_keyboard(opened: Open) -> None:
    count, failures = opened().execute_script(f"let answer; {STRUCTURE}; return answer")
    assert count > 300
    assert failures == []


def test_a_phone_needs_no_sideways_scrolling(opened: Open) -> None:
    page = opened(width=390)
    root = "document.documentElement"
    assert page.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth && {root}.clientWidth <= 390")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 390])
def test_every_figure_is_drawn_when_it_comes_into_view_and_none_is_clipped(
    opened: Open, hostile: Path, width: int
) -> None:
    page = opened(width=width)
    places = page.find_elements("css selector", "[data-chart]")
    assert len(places) == len(list((hostile / "figures").glob("*.svg")))
    for place in places:
        page.execute_script("arguments[0].scrollIntoView()", place)
        wait(
            page,
            f"return document.querySelector(`[data-chart='{place.get_attribute('data-chart')}'] svg.marks`) !== null",
        )
        over = page.execute_script(
            "const box = arguments[0].querySelector('.drawing'), svg = box.querySelector('svg.marks');"
            "return svg.getBoundingClientRect().width - box.clientWidth",
            place,
        )
        assert over <= 1, place.get_attribute("data-chart")
    blocks = page.find_element("css selector", "[data-chart='ablation_block_length'] svg.marks").text
    assert {"vanilla", "2", "4"} <= set(blocks.split()), "places with names of their own"
    root = "document.documentElement"
    assert page.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
