"""The page about the environment says what the code says, and its code runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "environment.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_environment_page", ROOT / "scripts" / "make_environment_page.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_tables_are_in_sync_with_the_code(script: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert script.make_page(page) == page, "run scripts/make_environment_page.py"


def test_page_lists_every_key_with_a_meaning(script: ModuleType) -> None:
    rows = list(script.list_keys(script.Scenario))
    assert len(rows) == len({key for key, *_ in rows}) > 30
    assert all(meaning.endswith((".", ")")) and value for _, value, _, meaning in rows)


def test_page_with_an_unknown_section_is_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="the page has sections"):
        script.make_page("<!-- begin: nothing -->")


def test_code_of_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {})
