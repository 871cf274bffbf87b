from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from powergrid.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("powergrid ")
]


@pytest.mark.parametrize("block", PYTHON)
def test_python_block_of_the_readme_runs(block: str) -> None:
    scope: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), scope)
    env: Any = scope["env"]
    assert len(env.describe().actions)
    env.close()


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme_is_one_the_tool_takes(command: str) -> None:
    group = get_command(app)
    _, name, *arguments = shlex.split(command)
    assert isinstance(group, typer.core.TyperGroup)
    # parsing refuses an option or a choice that does not exist, and runs nothing
    context = group.commands[name].make_context(name, list(arguments))
    assert context.command is group.commands[name]


def test_readme_names_pages_that_exist() -> None:
    for page in re.findall(r"\]\((docs/[^)#]+|LICENSE)\)", README):
        assert (Path(__file__).parents[1] / page).is_file(), page
