"""Numbers drawn at reset: what is drawn is what is played, on every face, and all that says nothing of it stays."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import powergrid
from powergrid.envs import CentralVectorEnv, GridVectorEnv
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.scenario import load_scenario
from powergrid.scenario.ranges import Distribution

SHORT: dict[str, Any] = {"episode_length": 8, "step_minutes": 60}
DRAWN: dict[str, Any] = {
    "load_scale": {"uniform": [0.8, 1.3]},
    "profiles": {"price_scale": {"choice": [0.5, 2.0]}},
    "rating_scale": {"normal": [1.0, 0.05]},
    "penalty": {"loguniform": [10.0, 1000.0]},
    "devices": {"ess_*": {"soc_initial": {"uniform": [0.2, 0.8]}, "e_max_kwh": {"uniform": [500.0, 2000.0]}}},
}


def _play(task: GridTask, day: int, options: dict[str, Any], seed: int = 0, steps: int = 4) -> list[Any]:
    """Return what some steps of the same actions give in environment 0, beginning with a reset."""
    rng, found = np.random.default_rng(3), list[Any]()
    task.reset(0, np.random.default_rng(seed), {"day": day, **options})
    for _ in range(steps):
        action = task.action_buffer()
        action[:] = rng.uniform(-1.0, 1.0, action.shape[1])
        task.step()
        snapshot = task.simulation.snapshot
        found += [task.rewards[0].copy(), snapshot.v_pu[0].copy(), snapshot.loading_pu[0].copy()]
        found.append(task.infos()[0].copy())
    return found


@pytest.fixture(scope="module")
def task() -> Iterator[GridTask]:
    with closing(GridTask(load_scenario("ieee13_mg", SHORT), 2)) as own:
        yield own


@pytest.mark.parametrize(
    "given",
    [
        {"load_scale": 1.2},
        {"profiles.price_scale": 2.5},
        {"rating_scale": 0.7},
        {"norm_amps.Line.650632": 321.0},
        {"penalty": 7.0, "reward.scale": 0.5, "reward.weights.losses_kwh": 2.0},
        {"devices.ess_1.soc_initial": 0.25, "devices.ess_1.e_max_kwh": 777.0, "devices.ess_1.eta_charge": 0.8},
        {"devices.ess_1.standby_loss_kw": 5.0, "devices.ess_1.wear_usd_per_kwh": 0.5},
        {"devices.gen_1.cost_b_usd_per_kwh": 1.0, "devices.gen_1.ramp_kw_per_min": 0.5},
        {"devices.gen_1.initially_on": True, "devices.gen_1.p_min_kw": 50.0},
        {"start_hour": 10.0, "devices.pv_1.power_factor_min": 0.95, "devices.pv_1.p_limit_kw": 300.0},
        {"start_hour": 13.0},
    ],
    ids=lambda given: next(iter(given)),
)
def test_number_given_at_reset_plays_as_environment_built_with_it(task: GridTask, given: dict[str, Any]) -> None:
    usual = _play(task, 171, {})
    own = _play(task, 171, given)
    nested: dict[str, Any] = {}
    for key, value in given.items():
        at = nested
        *before, last = ["norm_amps", "Line.650632"] if key.startswith("norm_amps") else key.split(".")
        for part in before:
            at = at.setdefault(part, {})
        at[last] = value
    with closing(GridTask(load_scenario("ieee13_mg", {**SHORT, **nested}))) as built:
        expected = _play(built, 171, {})
    assert all(np.array_equal(a, b) for a, b in zip(own, expected, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(own, usual, strict=True))
    # and nothing is left of it
    assert all(np.array_equal(a, b) for a, b in zip(_play(task, 171, {}), usual, strict=True))


def test_other_impedances_play_as_those_compiled_in(task: GridTask) -> None:
    keys: dict[str, Any] = {"feeder_changes.scale.line_r": 1.3, "feeder_changes.scale.line_x": 0.8}
    taps = {"reg1": 9, "reg2": 6, "reg3": 9}  # which the own controls find otherwise where lines are others
    keys |= {f"taps.{name}": tap for name, tap in taps.items()}
    usual, own = _play(task, 171, {}), _play(task, 171, keys)
    with closing(GridTask(load_scenario("ieee13_mg", {**SHORT, "taps": taps, "feeder_changes": {"scale": {
        "line_r": 1.3, "line_x": 0.8}}}))) as built:  # fmt: skip
        expected = _play(built, 171, {})
    rated = (own[2] > 0.0) & (expected[2] > 0.0)
    assert np.count_nonzero(rated) > 10
    for mine, theirs in zip(own, expected, strict=True):
        chosen = rated if mine.shape == rated.shape else ...
        np.testing.assert_allclose(mine[chosen], theirs[chosen], rtol=1e-4, atol=1e-4)
    assert np.abs(own[1] - usual[1]).max() > 1e-3
    for mine, theirs in zip(_play(task, 171, {}), usual, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)


def test_one_environment_of_many_has_numbers_of_its_own(task: GridTask) -> None:
    keys = {"load_scale": 1.2, "devices.ess_1.e_max_kwh": 300.0, "rating_scale": 0.5, "penalty": 1.0}
    alone = _play(task, 171, keys)
    task.reset(1, np.random.default_rng(5), {"day": 20})
    again = _play(task, 171, keys)
    assert all(np.array_equal(a, b) for a, b in zip(alone, again, strict=True))
    task.reset(1, np.random.default_rng(5), {"day": 171, "rating_scale": 2.0})
    task.reset(0, np.random.default_rng(5), {"day": 171})
    ratio = task.simulation.snapshot.loading_pu[0] / np.maximum(task.simulation.snapshot.loading_pu[1], 1e-12)
    assert np.allclose(ratio[task.simulation.snapshot.loading_pu[0] > 0.0], 2.0)


def test_faces_draw_the_same_bits() -> None:
    scenario = load_scenario("ieee13_mg", {**SHORT, **DRAWN})
    told: list[list[dict[str, float]]] = []
    with closing(powergrid.make(scenario)) as single:
        own = []
        for seed in (4, 5):
            _, infos = single.reset(seed=seed)
            own.append({name: value for name, value in infos["MG1"].items() if name.startswith("drawn.")} | {
                "day": infos["MG1"]["day"]})  # fmt: skip
        told.append(own)
    assert own[0] != own[1]
    assert set(own[0]) == {
        "day", "drawn.load_scale", "drawn.profiles.price_scale", "drawn.rating_scale", "drawn.penalty",
        *(f"drawn.devices.{name}.{key}" for name in ("ess_1", "ess_2") for key in ("soc_initial", "e_max_kwh")),
    }  # fmt: skip
    with closing(GridVectorEnv(scenario, 2)) as vector:
        vector.reset(seed=4)
        infos = [vector.info_dicts(env)["MG1"] for env in range(2)]
        told.append([{name: info[name] for name in own[0]} for info in infos])
    with closing(CentralVectorEnv(scenario, 2, autoreset_mode=AutoresetMode.SAME_STEP)) as central:
        _, infos = central.reset(seed=4)
        told.append([{name: float(infos[name][env]) for name in own[0]} for env in range(2)])
        for _ in range(SHORT["episode_length"]):
            *_, after = central.step(central.action_space.sample() * 0)
        final = after["final_info"]
        assert float(final["drawn.load_scale"][0]) == told[-1][0]["drawn.load_scale"]
        assert after["drawn.load_scale"][0] != final["drawn.load_scale"][0]
    assert told[0] == told[1] == told[2]


def test_fixing_or_adding_a_range_shifts_no_other() -> None:
    with closing(powergrid.make("ieee13_mg", **SHORT, load_scale={"uniform": [0.8, 1.3]})) as env:
        _, before = env.reset(seed=1)
        _, fixed = env.reset(seed=1, options={"load_scale": 1.0})
        _, more = env.reset(seed=1, options={"penalty": {"uniform": [1.0, 2.0]}})
        with pytest.raises(ScenarioError, match=r"options.*load_scale"):
            env.reset(seed=1, options={"load_scale": -1.0})
    assert before["MG1"]["day"] == fixed["MG1"]["day"] == more["MG1"]["day"]
    assert fixed["MG1"]["drawn.load_scale"] == 1.0
    assert more["MG1"]["drawn.load_scale"] == before["MG1"]["drawn.load_scale"] != 1.0


def test_kept_state_brings_drawn_numbers_along() -> None:
    keys = {**SHORT, **DRAWN, "feeder_changes": {"scale": {"line_r": {"uniform": [0.9, 1.1]}}}}
    with closing(powergrid.make("ieee13_mg", **keys)) as one, closing(powergrid.make("ieee13_mg", **keys)) as other:
        one.reset(seed=9)
        one.set_ranges({"load_scale": 0.9})
        state = pickle.loads(pickle.dumps(one.get_state()))
        actions = {agent: np.zeros(one.action_space(agent).shape, np.float32) for agent in one.agents}
        here = [one.step(actions)[1] for _ in range(3)]
        other.reset(seed=2)
        _, infos = other.set_state(state)
        assert infos["MG1"]["drawn.load_scale"] == one.task.drawn_labels(0)["drawn.load_scale"]
        assert [other.step(actions)[1] for _ in range(3)] == here
        _, mine = one.reset()
        _, theirs = other.reset()
        assert mine["MG1"]["drawn.load_scale"] == theirs["MG1"]["drawn.load_scale"] == 0.9
        assert mine == theirs


def test_scenario_without_ranges_takes_nothing_from_the_stream(task: GridTask) -> None:
    rng, untouched = np.random.default_rng(1), np.random.default_rng(1)
    task.reset(0, rng, {"day": 30})
    task.simulation.reset_all([0], [untouched], 30)
    assert rng.bit_generator.state == untouched.bit_generator.state


def test_start_hour_is_seen_and_days_fit() -> None:
    with closing(powergrid.make("ieee13_mg", split="test", start_hour={"choice": [0.0, 18.0]})) as env:
        hours = set()
        for seed in range(8):
            seen, infos = env.reset(seed=seed)
            hour = infos["MG1"]["drawn.start_hour"]
            hours.add(hour)
            np.testing.assert_allclose(
                seen["MG1"][:2], [np.sin(hour * np.pi / 12), np.cos(hour * np.pi / 12)], atol=1e-6
            )
            assert infos["MG1"]["day"] in env.task.simulation.days
        assert hours == {0.0, 18.0}
        with closing(GridTask(load_scenario("ieee13_mg", {"split": "test"}))) as whole:
            whole.reset(0, np.random.default_rng(0), {"day": 171})
            env.reset(options={"day": 171, "start_hour": 18.0})
            mine, theirs = env.task.simulation, whole.simulation
            assert np.array_equal(mine.day_load_kw[0, :24], theirs.day_load_kw[0, 72:96])
            assert np.array_equal(mine.day_price[0, :24], theirs.day_price[0, 72:96])


def test_events_have_numbers_of_their_own() -> None:
    events = {"cloud": {"kind": "pv_step", "at_step": 0, "factor": {"uniform": [0.2, 0.8]}},
              "out": {"kind": "line_outage", "element": "Line.671684", "at_step": 2, "probability": 0.5}}  # fmt: skip
    with closing(powergrid.make("ieee13_mg", events=events, **SHORT)) as env:
        _, infos = env.reset(seed=0, options={"day": 171, "start_hour": 10.0, "events.out.probability": 1.0})
        sun = env.task.simulation.day_pv_pu[0].copy()
        env.reset(seed=0, options={"day": 171, "start_hour": 10.0, "events": {"cloud": {"factor": 1.0}}})
        np.testing.assert_allclose(sun, env.task.simulation.day_pv_pu[0] * infos["MG1"]["drawn.events.cloud.factor"])
        for probability in (1.0, 1e-9):
            env.reset(seed=0, options={"events.out.probability": probability})
            actions = {agent: np.zeros(env.action_space(agent).shape, np.float32) for agent in env.agents}
            for _ in range(4):
                env.step(actions)
            assert env.task.simulation.events.on[0, 1] == (probability == 1.0)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (
            "step_minutes",
            {"uniform": [5, 15]},
            "cannot be drawn: spaces and days are laid out by it; what can: load_sc",
        ),
        ("feeder_changes.scale.load", 1.1, "load_scale does the same at reset"),
        ("devices.ess_1.reactive", True, "what can of storage: e_max_kwh"),
        ("devices.ess_9.soc_initial", 0.5, "did you mean 'ess_2' or 'ess_1'"),
        ("devices.ess_1.soc_initial", {"uniform": [0.0, 0.5]}, "outside soc_min..soc_max"),
        ("load_scale", {"uniform": [1.3, 0.8]}, "does not go from the least to the most"),
        ("load_scale", {"unifrm": [0.8, 1.3]}, "did you mean 'uniform'"),
        ("load_scale", {"normal": [1.0, 0.5]}, "greater than 0"),
        ("load_scale", "high", "valid number"),
        ("lod_scale", 1.0, "did you mean 'load_scale'"),
        ("rewards.weights.voltage", 1.0, "unknown option"),
        ("reward.weights.discharge_share", 1.0, "has no weight here"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_key(task: GridTask, key: str, value: Any, told: str) -> None:
    with pytest.raises(ScenarioError) as error:
        task.reset(0, np.random.default_rng(0), {key: value})
    assert told in str(error.value)
    assert key in str(error.value)


def test_ranges_without_keys_are_told(task: GridTask) -> None:
    with pytest.raises(ScenarioError, match=r"ranges: give them by key, for example .* not \[1\.1\]"):
        task.draws.read([1.1])  # type: ignore[arg-type]


def test_numbers_that_contradict_each_other_are_told(task: GridTask) -> None:
    with pytest.raises(ScenarioError, match=r"soc_min 0\.8 is not below soc_max 0\.7"):
        task.reset(0, np.random.default_rng(0), {"devices.ess_1": {"soc_min": 0.8, "soc_max": 0.7}})


def test_distributions_have_their_means_and_bounds() -> None:
    luck = (np.arange(2000) + 0.5) / 2000
    cases = {"uniform": [2.0, 4.0], "loguniform": [1.0, 100.0], "normal": [5.0, 1.0], "choice": [1.0, 3.0]}
    means = {"uniform": 3.0, "loguniform": 99.0 / np.log(100.0), "normal": 5.0, "choice": 2.0}
    for shape, given in cases.items():
        drawn = Distribution.model_validate({shape: given})
        values = np.array([drawn.draw(float(each), whole=False) for each in luck])
        assert abs(values.mean() - means[shape]) < 0.01 * means[shape]
        assert min(drawn.ends) <= values.min() <= values.max() <= max(drawn.ends)
    narrow = Distribution.model_validate({"normal": [5.0, 1.0], "within": [4.9, 5.2]})
    assert all(4.9 <= narrow.draw(float(each), whole=False) <= 5.2 for each in luck)
    whole = [Distribution.model_validate({"uniform": [1, 3]}).draw(float(each), whole=True) for each in luck]
    assert np.unique(whole, return_counts=True)[1].tolist() == [667, 666, 667]
    weighed = Distribution.model_validate({"choice": [1, 2], "weights": [3, 1]})
    assert np.mean([weighed.draw(float(each), whole=False) == 1 for each in luck]) == 0.75
