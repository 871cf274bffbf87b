"""The page about other feeders says what is so: its code runs, its scenario loads and plays on its feeders."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from powergrid.envs.feeders import FeederTasks
from powergrid.scenario import load_scenario
from powergrid.scenario.vocabulary import RULES

PAGE = (Path(__file__).parents[3] / "docs" / "generalisation.md").read_text(encoding="utf-8")


def test_code_of_the_page_runs(capsys) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "generalisation.md", "exec"), {})
    assert "ieee" in capsys.readouterr().out


def test_scenario_of_the_page_plays_on_its_feeders() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    scenario = load_scenario(yaml.safe_load(block))
    tasks = FeederTasks(scenario)
    try:
        assert list(tasks.tasks) == ["ieee13", "ieee34", "ieee123"]
        assert tasks.several
    finally:
        tasks.close()


def test_page_names_every_rule() -> None:
    assert all(f"| `{rule}` |" in PAGE for rule in RULES)
