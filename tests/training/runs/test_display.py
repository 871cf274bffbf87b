from __future__ import annotations

import io

import pytest
from rich.console import Console

from powergrid.training.runs.display import TrainingDisplay, describe_report
from powergrid.training.runs.loop import IterationReport

REPORT = IterationReport(
    iteration=3,
    iterations=10,
    env_steps=18432,
    env_steps_per_s=2345.6,
    elapsed_s=30.0,
    left_s=3725.0,
    metrics={
        "episode_return_mean": -12.345678,
        "custom/energy_cost_usd": 1234.5,
        "custom/MG1/energy_cost_usd": 1.0,
        "custom/voltage_violations": 7.0,
        "validation/episode_return_mean": -11.0,
    },
)
LINE = "return -12.35  validation -11  violations 7  cost USD/agent 1,234  2,346 env-steps/s  1:02:05 left"


def test_describe_report_says_how_training_stands() -> None:
    assert describe_report(REPORT) == LINE


@pytest.mark.parametrize("terminal", [True, False])
def test_display_shows_a_line_with_and_without_a_terminal(terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200, color_system=None)
    with TrainingDisplay(console) as display:
        display(REPORT)
    text = stream.getvalue()
    assert LINE in text
    assert ("\x1b" in text) == terminal
    if not terminal:
        assert text == f"Starting Ray ...\niteration 3/10  {LINE}\n"
