"""The page for those who change the code names files that are there, and reads as short as it says."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")


def test_every_file_that_the_page_names_is_there() -> None:
    names = set(re.findall(r"`((?:[\w]+/)*\w+\.(?:py|json))\b[^`]*`", PAGE))
    assert len(names) > 12
    missing = [
        name for name in sorted(names) if not any((root / name).is_file() for root in (ROOT, ROOT / "powergrid"))
    ]
    assert missing == []


def test_glossary_has_at_most_forty_words() -> None:
    glossary = PAGE.split("## Words")[1].split("\n## ")[0]
    assert 10 < glossary.count("\n| ") - 1 <= 40
