"""Every code block and command of README and docs is run here, or says right before it why it is not.

A page is run from top to bottom in a folder of its own: Python in one namespace a page, ``powergrid`` commands through
the command line, YAML as a scenario. What a page calls ``path/to/Master.dss`` or ``~/grids/north/Master.dss`` is a copy
of the 13-node feeder, ``path/to/meters.csv`` five weeks of power at its head, and a run folder that no command of the
page has made is a copy of one small run.

What would take long is shortened, and only so: see ``SHORTER`` in ``running``. ``<!-- not run: reason -->`` right
before a block leaves it out; its ``powergrid`` commands are parsed still.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.main import get_command

import powergrid
from powergrid.cli import app
from powergrid.grid.feeder.feeder import models_folder
from tests.docs.blocks import (
    CODE,
    COMMANDS,
    NOT_CODE,
    PAGES,
    PYTHON,
    ROOT,
    YAML,
    Block,
    blocks_in,
    blocks_of,
    commands_of,
)
from tests.docs.running import HEAVY, run_command
from tests.training.test_page import OURS, SECTIONS
from tests.training.test_page import blocks_of as sections_of

# Python of these sections is run by tests/training/test_page.py, with what it needs around it.
WALKED = "\n".join(sections_of(OURS, "python")[section] for section in [*SECTIONS, "distributed training"])

A_RUN = re.compile(r"^(runs/[\w.-]+|their_run)$")

#: What pages say that their commands leave.
LEFT = {"planners": ["meters/report.html", "mine.yaml", "runs/mine", "report/report.html", "report/days/*.html",
                     "day/Master.dss"]}  # fmt: skip

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [block for block in BLOCKS if block.language in CODE and block.comment != "not run"]


def is_walked(block: Block) -> bool:
    return block.page == OURS and block.language in PYTHON and block.text in WALKED


def is_slow(page: Path) -> bool:
    blocks = [block for block in RUN if block.page == page and not is_walked(block)]
    words = [words for block in blocks if block.language in COMMANDS for words in commands_of(block)]
    return any(word in HEAVY for each in words for word in each[1:2]) or any("load_policy" in b.text for b in blocks)


PAGES_TO_RUN = [
    pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if is_slow(page) else [])
    for page in PAGES
    if any(block.page == page and not is_walked(block) for block in RUN)
]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_is_run_or_says_why_it_is_not(block: Block) -> None:
    assert block.language in CODE | NOT_CODE, f"{block}: name its language, one of {sorted(CODE | NOT_CODE)}"
    if block.comment == "not run":
        assert len(block.told.split()) >= 3, f"{block}: say why it is not run"
        assert block.language in CODE, f"{block}: {block.language} is never run"
    elif block.language in COMMANDS:
        for words in commands_of(block):
            assert words[0] == "powergrid", f"{block}: {words[0]!r} is not run; say why: <!-- not run: reason -->"
    else:
        assert not (block.language == "text" and block.text.startswith("powergrid ") and block.page.name != "cli.md")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in COMMANDS], ids=str)
def test_command_is_one_that_there_is(block: Block) -> None:
    for words in commands_of(block):
        if words[0] == "powergrid":
            command, rest = get_command(app), words[1:]
            while getattr(command, "commands", None):
                command, rest = command.commands[rest[0]], rest[1:]
            command.make_context("powergrid", list(rest))  # refuses an option or a choice that does not exist
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), f"{block}: there is no {words[1]}"


def test_python_that_needs_preparation_is_walked_elsewhere() -> None:
    walked = [block for block in BLOCKS if is_walked(block)]
    assert len(walked) >= len(SECTIONS)
    assert not any(block.comment == "not run" for block in walked)


def test_parser_finds_blocks_comments_and_continued_lines() -> None:
    text = (
        "<!-- not run: needs a cluster of two -->\n```bash\nray start --head  # here\npowergrid a \\\n  b\n```\n\n"
        "```yaml\na: 1\n```\n\n- item\n\n  % scenario: ieee13_mg\n\n  ```yaml\n  b: 2\n  ```\n\n```\nx\n```\n"
    )
    first, second, third, fourth = blocks_in(text, Path("x.md"))
    assert (first.language, first.comment, first.told) == ("bash", "not run", "needs a cluster of two")
    assert commands_of(first) == [["ray", "start", "--head"], ["powergrid", "a", "b"]]
    assert (second.comment, second.text) == ("", "a: 1\n")
    assert (third.comment, third.told, third.text) == ("scenario", "ieee13_mg", "b: 2\n")
    assert (fourth.language, fourth.line) == ("", 20)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that a page is run in, with a feeder of the reader's own."""
    home = tmp_path / "home"
    for folder in (tmp_path / "path" / "to", home / "grids" / "north"):
        shutil.copytree(models_folder() / "ieee13", folder)
    hours = pd.date_range("2024-06-03", "2024-07-08", freq="h", inclusive="left")
    kw = (1800.0 + 700.0 * np.sin((hours.hour - 9) / 24 * 2 * np.pi)).round(1)
    meters = pd.DataFrame({"time": hours.strftime("%Y-%m-%d %H:%M"), "head kW": kw})
    meters.to_csv(tmp_path / "path" / "to" / "meters.csv", index=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES_TO_RUN)
def test_page_runs_from_top_to_bottom(page: Path, place: Path, request: pytest.FixtureRequest) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in (each for each in RUN if each.page == page and not is_walked(each)):
        if block.language in PYTHON:
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
        elif block.language in YAML:
            read_scenario(block, place)
        else:
            for words in commands_of(block):
                if words[1] in HEAVY:
                    request.getfixturevalue("ray_session")
                for word in words:
                    if A_RUN.match(word) and not (place / word).exists() and words[words.index(word) - 1] != "--out":
                        shutil.copytree(request.getfixturevalue("sample_run"), place / word)
                run_command(words)
    assert [pattern for pattern in LEFT.get(page.stem, []) if not list(place.glob(pattern))] == []
    for name in list(names):
        if hasattr(names[name], "close") and name in ("env", "envs"):
            names[name].close()  # type: ignore[attr-defined]


def read_scenario(block: Block, place: Path) -> None:
    """Read YAML as a scenario, or as keys over the scenario or feeder that the comment before it names."""
    keys = yaml.safe_load(block.text)
    if block.comment == "scenario":
        scenario = powergrid.load_scenario(block.told, keys)
    else:
        file = place / f"{keys['name']}.yaml"
        file.write_text(block.text)
        scenario = powergrid.load_scenario(file)
    assert scenario.agents
