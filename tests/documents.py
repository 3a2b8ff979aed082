"""What README.md and docs/ say that can be held to it: commands, snippets, links."""

from __future__ import annotations

import re
import shlex
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
    """Apply a documented change; each hunk's old lines must be in the file exactly once. A file may be new."""
    for part in re.split(r"^\+\+\+ ", snippet.text, flags=re.MULTILINE)[1:]:
        name, *hunks = re.split(r"^@@\n", part, flags=re.MULTILINE)
        path = folder / name.strip()
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for hunk in hunks:
            old, new = _side(hunk, "-"), _side(hunk, "+")
            assert text.count(old) == 1, f"{snippet.where}: {name.strip()} holds {text.count(old)} times:\n{old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def _side(hunk: str, sign: str) -> str:
    lines = [line for line in hunk.splitlines() if line[:1] in (" ", sign, "")]
    return "".join(f"{line[1:]}\n" for line in lines)


PROGRAMS = ("make", "dvc", "python", "torchrun", "srun", "env", "pytest", "pip", "source", "git", "cd")
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command that a document shows, as a shell reads it."""

    document: str
    line: int
    text: str

    @property
    def where(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"


def commands() -> list[Command]:
    """Every command of a fenced ``sh`` block, line by line, and of running text, in the documents' order."""
    found = []
    for path in DOCUMENTS:
        for snippet in snippets("sh", path):
            for number, line in enumerate(snippet.text.splitlines(), snippet.line + 1):
                found.append(Command(snippet.document, number, plain(line)))
        for line_number, text in spans(path):
            if text.split()[0] in PROGRAMS and len(text.split()) > 1:
                found.append(Command(str(path.relative_to(ROOT)), line_number, plain(text)))
    return [command for command in found if command.text]


def spans(path: Path) -> list[tuple[int, str]]:
    """Line and text of everything in backticks outside of fenced blocks."""
    text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), path.read_text(encoding="utf-8"))
    found = [(text.count("\n", 0, match.start()) + 1, " ".join(match[2].split())) for match in SPAN.finditer(text)]
    return [(line, span) for line, span in found if span]


def headings(path: Path) -> set[str]:
    """The anchors of a document's headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(path: Path) -> list[str]:
    """The targets of a document's relative links and pictures."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def plain(line: str) -> str:
    """The line without its comment, quoted anew."""
    words = shlex.split(line, comments=True)
    return " ".join(word if word == "&&" else shlex.quote(word) for word in words)
