from __future__ import annotations

import re
from pathlib import Path

import pytest
from ray.rllib.algorithms.ppo import PPOConfig

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def test_messages_quoted_from_rllib_are_what_it_says() -> None:
    with pytest.raises(TypeError) as refused:
        PPOConfig().training(sgd_minibatch_size=128)
    assert f"TypeError: {refused.value}" in PAGE
    with pytest.raises(ValueError, match="rollouts") as deprecated:
        PPOConfig().rollouts(num_rollout_workers=4, rollout_fragment_length=200)
    assert f"ValueError: {deprecated.value}" in PAGE


def test_python_blocks_of_the_page_are_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        compile(block, "docs/training.md", "exec")


def test_python_block_of_the_algorithms_page_runs(ray_session: None) -> None:
    page = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text()
    not_run, block = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    compile(not_run, "docs/algorithms.md", "exec")
    names: dict = {}
    exec(block, names)
    assert names["config"].algo_class.__name__ == "PPO"


def test_faults_of_the_page_name_tests_that_are_there() -> None:
    root = Path(__file__).parents[2]
    named = set(re.findall(r"`(test_\w+)`", (root / "docs" / "faults.md").read_text()))
    code = "".join(file.read_text() for file in (root / "tests").rglob("test_*.py"))
    assert len(named) > 12
    assert [name for name in sorted(named) if f"def {name}(" not in code] == []
