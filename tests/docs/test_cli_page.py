from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.main import get_command

from powergrid.cli import app, main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_cli_page", ROOT / "scripts" / "make_cli_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_the_one_of_the_code(script: ModuleType) -> None:
    assert script.make_page() == PAGE, "run scripts/make_cli_page.py"


def commands_of(command: object, words: str = "powergrid") -> dict[str, object]:
    below = getattr(command, "commands", None)
    if below is None:
        return {words: command}
    return {name: each for key, part in below.items() for name, each in commands_of(part, f"{words} {key}").items()}


def test_page_has_every_command_with_every_name_that_its_parser_takes() -> None:
    commands = commands_of(get_command(app))
    assert "powergrid train" in commands
    sections = dict(re.findall(r"^## (powergrid [^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(commands)
    for name, command in commands.items():
        taken = {option for each in command.params if each.param_type_name == "option" for option in each.opts}
        assert set(re.findall(r"`(--[\w-]+)`", sections[name].split("\n|---")[-1].split("\n\n")[0])) == taken, name


@pytest.mark.parametrize("command", commands_of(get_command(app)))
def test_help_of_every_command_says_what_the_page_says(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split()[1:], "--help"])
    assert not ended.value.code
    shown = " ".join(capsys.readouterr().out.split())
    section = PAGE.split(f"## {command}\n\n")[1]
    assert " ".join(section.split("\n\n")[0].split()) in shown


def test_command_below_a_group_is_listed_with_its_group(script: ModuleType) -> None:
    group, below = typer.Typer(), typer.Typer()

    @below.command()
    def inner(name: str, count: int = 3) -> None:
        """Do it."""

    group.add_typer(below, name="outer")
    ((words, function),) = script.walk_commands(group, ("x",))
    assert words == ("x", "outer", "inner")
    told = script.describe_command(words, function)
    assert "x outer inner NAME [OPTIONS]" in told
    assert "| `--count` | whole number | `3` |  |" in told
