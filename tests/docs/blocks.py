"""The code blocks of README and docs, with the comment that stands right before each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON, COMMANDS, YAML = {"python"}, {"bash", "console"}, {"yaml"}
CODE = PYTHON | COMMANDS | YAML
NOT_CODE = {"text"}  # output, and text that only shows a form
COMMENT = re.compile(r"(?:<!--|%)\s*(?P<kind>not run|scenario|setup):\s*(?P<text>.*?)\s*(?:-->|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language and text, and what the comment before it says."""

    page: Path
    line: int
    language: str
    text: str
    comment: str = ""  # "not run", "scenario", "setup" or nothing
    told: str = ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, also those of a language that nobody knows."""
    return list(blocks_in(page.read_text(encoding="utf-8"), page))


def blocks_in(text: str, page: Path) -> Iterator[Block]:
    """Return the blocks of a text."""
    before = ""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "fence" and not token.info.startswith("{"):
            found = COMMENT.search(before.strip().splitlines()[-1]) if before.strip() else None
            kind, told = (found["kind"], found["text"]) if found else ("", "")
            yield Block(page, (token.map or [0])[0] + 1, token.info.strip(), token.content, kind, told)
        if token.type in ("html_block", "inline", "fence"):
            before = token.content if token.type != "fence" else ""


def commands_of(block: Block) -> list[list[str]]:
    """Return the words of each command of a block; a line that ends in a backslash goes on."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]
