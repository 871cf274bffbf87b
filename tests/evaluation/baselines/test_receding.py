from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest

from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation import BASELINES, baseline_names, evaluate
from powergrid.scenario import load_scenario

DAY, NOW = 100, 6
#: Half a day hour by hour, from midnight: a battery, panels, and cars that come in the morning.
HOURLY: dict[str, Any] = {
    "name": "hourly",
    "feeder": "ieee13",
    "split": "test",
    "step_minutes": 60,
    "episode_length": 12,
    "profiles": {"tariff": "time_of_use"},
    "devices": {
        "ess": {"kind": "storage", "bus": "675", "e_max_kwh": 800, "p_max_kw": 200},
        "pv": {"kind": "inverter", "bus": "675", "p_max_kw": 900, "reactive": "category_b"},
        "ev": {"kind": "ev_charger", "bus": "634", "ports": 6, "p_max_kw": 7.4, "arrival_hour_mean": 6},
    },
    "agents": {"A": {"devices": ["ess", "pv", "ev"], "zone": {"downstream_of": "632"}, "pcc": "632"}},
}
Play = Callable[..., np.ndarray]


@pytest.fixture
def play() -> Iterator[Play]:
    with ExitStack() as stack:

        def of(name: str, steps: int, change: Callable[[GridTask], None] = lambda task: None, envs: int = 1) -> Any:
            task = stack.enter_context(closing(GridTask(load_scenario(HOURLY), envs)))
            player = BASELINES[name].make(0)
            for env in range(envs):
                task.reset(env, np.random.default_rng([0, DAY + env]), {"day": DAY + env})
                player.reset(task, env)
            change(task)
            done = []
            for _ in range(steps):
                done.append(player.act(task))
                task.action_buffer()[...] = done[-1]
                task.step()
            return np.array(done)

        yield of


def another_future(task: GridTask) -> None:
    """Change all that comes after the step behind ``NOW``, which is known when it is decided upon."""
    simulation, cars = task.simulation, next(f for f in task.simulation.fleets if f.kind == "ev_charger")
    simulation.day_load_kw[:, NOW + 1 :] *= 0.4
    simulation.day_load_kvar[:, NOW + 1 :] *= 0.4
    simulation.day_pv_pu[:, NOW + 1 :] *= 0.2
    cars.arriving_kwh[:, NOW + 1 :] *= 0.1  # of who is there it is known when they leave


@pytest.mark.parametrize("name", ["mpc", "greedy"])
def test_another_future_changes_nothing_before_it_comes(play: Play, name: str) -> None:
    before, after = play(name, NOW + 3), play(name, NOW + 3, another_future)
    assert np.array_equal(before[: NOW + 1], after[: NOW + 1])
    assert not np.array_equal(before[NOW + 1 :], after[NOW + 1 :])  # it is met when it is there


def test_perfect_forecasts_know_the_future(play: Play) -> None:
    assert not np.allclose(play("mpc_perfect", 1), play("mpc_perfect", 1, another_future))


def test_each_environment_of_a_batch_is_planned_as_if_alone(play: Play) -> None:
    assert play("mpc", 3, envs=2)[:, :1] == pytest.approx(play("mpc", 3))


def test_plans_earn_more_than_nothing_and_are_no_bar_where_nobody_could_make_them() -> None:
    names = ["no_control", "greedy", "mpc", "mpc_perfect", "optimum"]
    report = evaluate(HOURLY, names, days=1)
    reward = {name: report.reward(name).mean for name in names}
    assert reward["no_control"] < reward["greedy"]
    assert reward["no_control"] < reward["mpc"] < reward["mpc_perfect"] + 1e-3
    assert reward["mpc_perfect"] > reward["no_control"] + 0.9 * (reward["optimum"] - reward["no_control"])
    assert report.best_baseline in ("greedy", "mpc")
    assert report.kinds["mpc_perfect"] == "foresight"
    assert report.optimum == "optimum"
    assert not {"greedy", "mpc", "mpc_perfect", "optimum"} & set(baseline_names())  # they take their time


def test_what_no_program_tells_is_refused_by_name() -> None:
    with pytest.raises(ScenarioError, match="controls of the feeder's own that act"):
        evaluate({**HOURLY, "native_controls": True}, ["mpc"], days=1)


def test_first_day_has_no_yesterday() -> None:
    task = GridTask(load_scenario({**HOURLY, "split": "all"}))
    try:
        task.reset(0, np.random.default_rng(0), {"day": 0})
        with pytest.raises(ScenarioError, match="day 0 has no day before it"):
            BASELINES["mpc"].make(0).reset(task, 0)
    finally:
        task.close()


def test_looking_one_step_ahead_pays_back_what_it_puts_off() -> None:
    flex = {"flex": {"kind": "flexible_load", "element": "Load.671", "owed_max_kwh": 600}}
    agents = {"A": {**HOURLY["agents"]["A"], "devices": ["flex"]}}
    day = {**HOURLY, "episode_length": 24, "devices": flex, "agents": agents}
    played = evaluate(day, ["greedy"], days=1).frame.iloc[0]
    # as much is put off in dear hours as is paid back in the cheap ones after them: with none, the bill is higher
    assert played.unserved_kwh < 1.0
    assert evaluate(day, ["no_control"], days=1).frame.iloc[0].energy_cost_usd > played.energy_cost_usd + 10.0
