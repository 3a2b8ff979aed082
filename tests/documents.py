"""What README.md and docs/ say that can be held to it: commands, snippets, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A fenced block, and where it begins."""

    document: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.document}:{self.line}"


def snippets(language: str | None = None, document: Path | None = None) -> list[Snippet]:
    """The fenced blocks of a language in a document, or in all of them."""
    found = []
    for path in [document] if document else DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Snippet(str(path.relative_to(ROOT)), line, match[2], match[3]))
    return [snippet for snippet in found if language in (None, snippet.language)]


def apply_diff(snippet: Snippet, folder: Path) -> None:
    """Apply a documented change; each hunk's old lines must be in the file exactly once."""
    for part in re.split(r"^\+\+\+ ", snippet.text, flags=re.MULTILINE)[1:]:
        name, *hunks = re.split(r"^@@\n", part, flags=re.MULTILINE)
        path = folder / name.strip()
        text = path.read_text(encoding="utf-8")
        for hunk in hunks:
            old, new = _side(hunk, "-"), _side(hunk, "+")
            assert text.count(old) == 1, f"{snippet.where}: {name.strip()} holds {text.count(old)} times:\n{old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def _side(hunk: str, sign: str) -> str:
    lines = [line for line in hunk.splitlines() if line[:1] in (" ", sign, "")]
    return "".join(f"{line[1:]}\n" for line in lines)
