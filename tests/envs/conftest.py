from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import powergrid
from powergrid.envs import GridVectorEnv, NetworkedGridEnv
from tests.envs.worlds import every_kind


def close_after(build: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield a function that builds environments, and close all that it built."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **keys: stack.enter_context(contextlib.closing(build(*args, **keys)))


@pytest.fixture
def make_env() -> Iterator[Callable[..., NetworkedGridEnv]]:
    """Make environments as RLlib does, from an ``env_config``; they are closed at the end."""

    def build(config: str | dict[str, Any] = "ieee13_mg", /, **overrides: Any) -> NetworkedGridEnv:
        source = {"env_name": config} if isinstance(config, str) else {"scenario": config}
        return NetworkedGridEnv(source | overrides)

    yield from close_after(build)


@pytest.fixture
def make_parallel() -> Iterator[Callable[..., Any]]:
    """Make PettingZoo environments; they are closed at the end."""
    yield from close_after(lambda scenario="ieee13_mg", **keys: powergrid.make(scenario, **keys))


@pytest.fixture
def make_central() -> Iterator[Callable[..., Any]]:
    """Make single-agent environments; they are closed at the end."""
    yield from close_after(lambda scenario="ieee13_voltvar", **keys: powergrid.make_central(scenario, **keys))


@pytest.fixture
def make_vector() -> Iterator[Callable[..., GridVectorEnv]]:
    """Make vector environments; they are closed at the end, and leave no process."""
    yield from close_after(GridVectorEnv)
    assert multiprocessing.active_children() == []


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
