"""PowerGrid: multi-agent reinforcement learning on OpenDSS feeders.

Importing it is light: engine, Ray and Torch are loaded when something needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powergrid.errors import (
    ActionError,
    ConvergenceError,
    EngineError,
    FeederError,
    PowerGridError,
    ScenarioError,
)

if TYPE_CHECKING:
    from powergrid.envs.parallel import ParallelGridEnv
    from powergrid.scenario import Scenario

__version__ = "0.1.0"

__all__ = [
    "ActionError",
    "ConvergenceError",
    "EngineError",
    "FeederError",
    "PowerGridError",
    "ScenarioError",
    "__version__",
    "list_feeders",
    "list_scenarios",
    "load_scenario",
    "make",
]


def make(scenario: str | Path | Mapping[str, Any] | Scenario, **overrides: Any) -> ParallelGridEnv:
    """Build an environment with PettingZoo's parallel API.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, the data itself, or a scenario.
        overrides: Scenario fields to change, for example ``split="test"``.

    Raises:
        ScenarioError: with every problem of the settings.
        FeederError: the feeder does not compile or solve.
    """
    from powergrid.envs.parallel import ParallelGridEnv

    return ParallelGridEnv(load_scenario(scenario, overrides))


def load_scenario(
    source: str | Path | Mapping[str, Any] | Scenario, overrides: Mapping[str, Any] | None = None
) -> Scenario:
    """Load and validate a scenario; see :func:`powergrid.scenario.load_scenario`."""
    from powergrid import scenario

    return scenario.load_scenario(source, overrides)


def list_scenarios() -> list[str]:
    """Name the shipped scenarios."""
    from powergrid import scenario

    return scenario.list_scenarios()


def list_feeders() -> list[str]:
    """Name the shipped feeders."""
    from powergrid.grid import feeder

    return feeder.list_feeders()
