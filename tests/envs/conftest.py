from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import powergrid
from powergrid.envs import NetworkedGridEnv
from tests.envs.worlds import every_kind


@pytest.fixture
def make_env() -> Iterator[Callable[..., NetworkedGridEnv]]:
    """Make environments as RLlib does, from an ``env_config``; they are closed at the end."""
    made: list[NetworkedGridEnv] = []

    def make(config: str | dict[str, Any] = "ieee13_mg", /, **overrides: Any) -> NetworkedGridEnv:
        source = {"env_name": config} if isinstance(config, str) else {"scenario": config}
        made.append(NetworkedGridEnv(source | overrides))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture
def make_parallel() -> Iterator[Callable[..., Any]]:
    """Make PettingZoo environments; they are closed at the end."""
    made: list[Any] = []

    def make(scenario: Any = "ieee13_mg", **overrides: Any) -> Any:
        made.append(powergrid.make(scenario, **overrides))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture(params=["ieee13", "ieee123"])
def every_kind_scenario(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """A scenario with all eight kinds of devices, on the shortest and on the longest feeder."""
    return every_kind(request.param, tmp_path)


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if "8500" in name else ()) for name in powergrid.list_scenarios()]
)
def shipped(request: pytest.FixtureRequest) -> str:
    """Every shipped scenario by name."""
    return str(request.param)


@pytest.fixture(params=["distributed", "centralized"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)
