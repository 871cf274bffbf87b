from __future__ import annotations

import pytest

import powergrid


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if "8500" in name else ()) for name in powergrid.list_scenarios()]
)
def shipped(request: pytest.FixtureRequest) -> str:
    """Every shipped scenario by name."""
    return str(request.param)
