"""The page, read as text and in headless Chromium where one is installed."""

from __future__ import annotations

import html
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic import HOSTILE

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)")


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
    assert len(page.of("img")) == len(list((hostile / "figures").glob("*.svg")))
    assert all(len(image["alt"] or "") > 20 for image in page.of("img"))
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert {link[1:] for link in page.links if link.startswith("#")} <= targets
    assert all(head.get("scope") in ("col", "row") for head in page.of("th"))


def test_text_from_results_is_escaped(hostile: Path) -> None:
    text = (hostile / "index.html").read_text()
    assert HOSTILE not in text
    assert len(Outline(text).of("script")) == 2


def test_without_scripts_the_figures_and_the_table_remain(hostile: Path) -> None:
    page = Outline((hostile / "index.html").read_text())
    scripted = [attributes for _, attributes in page.elements if "scripted" in (attributes.get("class") or "").split()]
    assert scripted
    assert all("hidden" in attributes for attributes in scripted)
    names = {path.stem for path in (hostile / "metrics").iterdir()}
    assert all(f'<th scope="row">{name}</th>' in (hostile / "index.html").read_text() for name in names)


def browse(page: Path, script: str, fragment: str = "", *options: str) -> object:
    """Open the page in Chromium, run ``script`` in it, and return what it assigns to ``answer``."""
    probe = page.with_name("probe.html")
    report = "document.body.dataset.answer = JSON.stringify(answer);"
    text = page.read_text().replace("</body>", f"<script>let answer; {script}; {report}</script></body>")
    probe.write_text(text)
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--allow-file-access-from-files", "--window-size=1280,900", *options, "--dump-dom"]
    ran = subprocess.run([*command, f"file://{probe}{fragment}"], capture_output=True, text=True, timeout=120)
    probe.unlink()
    assert [line for line in ran.stderr.splitlines() if "Uncaught" in line] == []
    found = re.search(r'data-answer="([^"]*)"', ran.stdout)
    assert found, ran.stderr
    return json.loads(html.unescape(found[1]))


MARKS = """
answer = {};
for (const mark of document.querySelectorAll("#plot .mark"))
  answer[mark.dataset.point] = mark.classList.contains("beaten")
"""


@browser
def test_the_plot_greys_what_its_own_family_beats(hostile: Path) -> None:
    beaten = browse(hostile / "index.html", MARKS)
    assert beaten == {
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


@browser
def test_the_address_chooses_axes_and_series(hostile: Path) -> None:
    fragment = (
        "#x=non_embedding_parameters&y=bits_per_byte&hide=vanilla;pretrained;vanilla,+transformers+generate&front=1"
    )
    script = f"""{MARKS};
    answer = [Object.keys(answer), document.getElementById("x").value, document.getElementById("plot").textContent]
    """
    names, x, text = browse(hostile / "index.html", script, fragment)  # type: ignore[misc]
    assert set(names) == {"block-s-2-base", "block-m-2-base", "block-vanilla-s-0-4-up"}
    assert x == "non_embedding_parameters"
    assert "Bits a byte" in text


@browser
def test_pointing_toggling_and_sorting_answer(hostile: Path) -> None:
    script = """
    const press = (index) => document.querySelectorAll(".sortable thead button")[index].click();
    const rows = () => [...document.querySelectorAll(".sortable tbody tr")];
    const losses = () => rows().map((row) => Number(row.cells[8].dataset.value));
    document.querySelector('[data-point="vanilla-m"]').dispatchEvent(new Event("focus"));
    const detail = document.getElementById("detail").textContent;
    document.querySelector('input[name="vanilla"]').click();
    const left = [...document.querySelectorAll("#plot .mark")].map((mark) => mark.dataset.point);
    press(8); const rising = losses(); press(8); const falling = losses();
    answer = { detail, left, rising, falling, hash: location.hash }
    """
    answer = browse(hostile / "index.html", script)
    assert isinstance(answer, dict)
    assert answer["detail"].startswith("vanilla-m (vanilla, size m)")
    assert HOSTILE in answer["detail"]
    assert "vanilla-m" not in answer["left"]
    assert "hide=vanilla" in answer["hash"]
    assert answer["rising"] == sorted(answer["rising"])
    assert answer["falling"] == sorted(answer["rising"], reverse=True)


CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@browser
@pytest.mark.parametrize(("scheme", "paper"), [("1", "rgb(255, 255, 255)"), ("0", "rgb(22, 24, 28)")])
def test_text_and_marks_stand_out_in_light_and_dark(hostile: Path, scheme: str, paper: str) -> None:
    """WCAG 2 AA: text 4.5:1, graphics 3:1, a label for every control."""
    answer = browse(hostile / "index.html", CONTRAST, "", f"--blink-settings=preferredColorScheme={scheme}")
    assert isinstance(answer, list)
    assert answer[0] > 50
    assert answer[1] == []
    assert answer[2] == paper


STRUCTURE = (Path(__file__).parent / "structure.js").read_text(encoding="utf-8")


@browser
def test_everything_has_a_name_and_answers_to_the_keyboard(hostile: Path) -> None:
    answer = browse(hostile / "index.html", STRUCTURE)
    assert isinstance(answer, list)
    assert answer[0] > 300
    assert answer[1] == []


@browser
def test_families_and_settings_are_toggled_together_and_pointing_shows_a_tip(hostile: Path) -> None:
    script = """
    const box = (name) => document.querySelector(`#families input[name="${name}"]`);
    const marks = () => [...document.querySelectorAll("#plot .mark")].map((mark) => mark.dataset.point);
    const tip = document.getElementById("tip");
    document.querySelector('[data-point="vanilla-m"]').dispatchEvent(new Event("mouseenter"));
    const shown = [tip.hidden, tip.textContent];
    document.querySelector('[data-point="vanilla-m"]').dispatchEvent(new Event("mouseleave"));
    shown.push(tip.hidden);
    box("block").click();
    const without = marks();
    document.querySelector('#series input[name="block L=2"]').click();
    const some = [box("block").checked, box("block").indeterminate];
    document.querySelector('#settings input[value="prefill_heavy"]').click();
    answer = { shown, without, some, axes: ["x", "y"].map((id) => document.getElementById(id).value) };
    """
    answer = browse(hostile / "index.html", script)
    assert isinstance(answer, dict)
    hidden, text, gone = answer["shown"]
    assert (hidden, gone) == (False, True)
    assert text.startswith("vanilla-m\ndecode-heavy tokens/s: ")
    assert [name for name in answer["without"] if name.startswith("block-s")] == []
    assert set(answer["without"]) >= {"pythia", "vanilla-s", "vanilla-m", "block-vanilla-s-0-4-up"}
    assert answer["some"] == [True, True]
    assert answer["axes"] == ["prefill_heavy_tokens_per_second", "loss"]


@browser
def test_a_phone_needs_no_sideways_scrolling(hostile: Path, tmp_path: Path) -> None:
    frame = hostile / "phone.html"
    frame.write_text(
        f"<iframe src='file://{hostile}/index.html' style='width:390px;height:800px'></iframe><body></body>"
    )
    script = """
    const inner = document.querySelector("iframe");
    const measure = () => {
      const root = inner.contentDocument.documentElement;
      answer = [root.scrollWidth, root.clientWidth];
      document.body.dataset.answer = JSON.stringify(answer);
    };
    inner.addEventListener("load", measure);
    """
    answer = browse(frame, script)
    frame.unlink()
    assert isinstance(answer, list)
    assert answer[0] <= answer[1] <= 390
