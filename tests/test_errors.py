"""Problems as data: what errors carry, how they print, and that they travel between processes."""

from __future__ import annotations

import pickle

import pytest

from powergrid.errors import ActionError, FeederError, PowerGridError, Problem, ScenarioError

_MISSING = Problem("missing-file", "Master.dss:3", "redirect of a missing file 'loads.dss'", "put it there")


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (_MISSING, "Master.dss:3: redirect of a missing file 'loads.dss'; put it there"),
        (Problem("no-circuit", "", "no 'New Circuit'"), "no 'New Circuit'"),
        (Problem.of("agents.a: too many"), "agents.a: too many"),
    ],
)
def test_problem_prints_where_text_and_remedy(problem: Problem, line: str) -> None:
    assert str(problem) == line


@pytest.mark.parametrize("kind", [ScenarioError, FeederError, ActionError])
def test_errors_carry_problems_as_data_and_as_lines(kind: type[ScenarioError]) -> None:
    error = kind("a.yaml", [_MISSING, "devices: none"])
    assert error.details == (_MISSING, Problem("", "", "devices: none"))
    assert error.problems == (str(_MISSING), "devices: none")
    assert str(error) == f"a.yaml has 2 problems\n  {_MISSING}\n  devices: none"
    assert str(kind("a.yaml", [_MISSING])) == f"a.yaml: {_MISSING}"
    assert str(kind("a.yaml")) == "a.yaml"
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, PowerGridError)
    assert (type(copy), copy.where, copy.details) == (kind, "a.yaml", error.details)
