"""Rewards of other libraries: each preset against the library's formula, written down here a second time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import powergrid
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.quantities import COUNTED_TERMS
from powergrid.scenario.vocabulary import PRESETS


class Weights(NamedTuple):
    """Constants of one system in powergym/env_register.py, by their names there."""

    power_w: float
    cap_w: float
    reg_w: float
    soc_w: float
    dis_w: float


#: As siemens/powergym has them, commit 98c4f23.
PUBLISHED = {
    "13bus": Weights(10.0, 1 / 33, 1 / 33, 0 / 33, 6 / 33),
    "13bus_soc": Weights(10.0, 1 / 33, 1 / 33, 20 / 33, 1 / 33),
    "34bus": Weights(1.0, 1 / 33, 1 / 33, 0 / 33, 10 / 33),
    "34bus_soc": Weights(1.0, 1 / 33, 1 / 33, 500 / 33, 4 / 33),
    "123bus": Weights(10.0, 1 / 33, 1 / 33, 0 / 33, 7 / 33),
    "123bus_soc": Weights(10.0, 1 / 33, 1 / 33, 500 / 33, 5 / 33),
    "8500node": Weights(1.0, 1 / 33, 1 / 33, 0 / 33, 200 / 33),
    "8500node_soc": Weights(1.0, 1 / 33, 1 / 33, 10_000 / 33, 100 / 33),
}


class Solved(NamedTuple):
    """What the formula needs of a step, by bus, bank, regulator and battery."""

    volts: dict[str, list[float]]
    losses_kw: float
    source_kw: float
    caps: dict[str, int]
    taps: dict[str, int]
    soc: dict[str, float]
    discharge: dict[str, float]


def by_formula(w: Weights, before: Solved, now: Solved, soc_initial: dict[str, float], last: bool) -> float:
    """Return the reward of a step as Fan, Lee and Wang (2021) define it: power, control and voltage, one by one."""
    power = -w.power_w * max(0.0, min(1.0, now.losses_kw / now.source_kw))
    control = sum(w.cap_w * abs(now.caps[name] - before.caps[name]) for name in now.caps)
    control += sum(w.reg_w * abs(now.taps[name] - before.taps[name]) for name in now.taps)
    control += sum(w.dis_w * max(0.0, share) for share in now.discharge.values())
    if last:
        control += sum(w.soc_w * abs(now.soc[name] - soc_initial[name]) for name in now.soc)
    voltage = 0.0
    for phases in now.volts.values():
        voltage += min(0.0, 1.05 - max(phases)) + min(0.0, min(phases) - 0.95)
    return power - control + voltage


def read(task: GridTask) -> Solved:
    """Read a solved state by the names of things."""
    simulation = task.simulation
    volts: dict[str, list[float]] = {}
    for node, v_pu in zip(simulation.network.nodes, simulation.snapshot.v_pu[0].tolist(), strict=True):
        volts.setdefault(node.rpartition(".")[0], []).append(v_pu)
    fleets = {fleet.kind: fleet for fleet in simulation.fleets}
    battery = fleets["storage"]
    p_max = [spec.p_max_kw for spec in battery.specs]
    return Solved(
        volts,
        float(simulation.snapshot.losses_kw[0]),
        float(simulation.snapshot.source_kva[0].real),
        dict(zip(fleets["capacitor"].names, fleets["capacitor"].position[0].tolist(), strict=True)),
        dict(zip(fleets["regulator"].names, fleets["regulator"].position[0].tolist(), strict=True)),
        dict(zip(battery.names, battery.soc[0].tolist(), strict=True)),
        dict(zip(battery.names, (battery.p_kw[0] / p_max).tolist(), strict=True)),
    )


def test_formula_of_this_test_gives_what_was_computed_by_hand() -> None:
    before = Solved({}, 0, 0, {"c": 1}, {"r": 16}, {"b": 1.0}, {"b": 0.0})
    volts = {"a": [1.07, 0.92, 1.0], "b": [0.94, 0.93, 0.96], "c": [1.05, 0.95]}
    now = Solved(volts, 60.0, 2000.0, {"c": 0}, {"r": 13}, {"b": 0.75}, {"b": 0.5})
    # bus a: 0.02 above, 0.03 below; bus b: 0.02 below; losses 3 % times 10; a bank, 3 taps, half of full discharge
    assert by_formula(PUBLISHED["13bus"], before, now, {"b": 1.0}, True) == pytest.approx(
        -0.3 - (1 + 3 + 6 * 0.5) / 33 - (0.02 + 0.03 + 0.02)
    )
    assert by_formula(PUBLISHED["13bus_soc"], before, now, {"b": 1.0}, True) == pytest.approx(
        -0.3 - (1 + 3 + 0.5 + 20 * 0.25) / 33 - 0.07
    )


@pytest.mark.parametrize(
    ("scenario", "system"),
    [
        *(("ieee13_voltvar", system) for system in ("13bus", "13bus_soc")),
        *(("ieee34_voltvar", system) for system in ("34bus", "34bus_soc")),
        ("ieee123_voltvar", "123bus_soc"),
        ("ieee13_voltvar", "8500node_soc"),  # the weights; the feeder is too large for a quick test
    ],
)
def test_reward_of_a_preset_is_powergyms_formula(scenario: str, system: str) -> None:
    env = powergrid.make_central(scenario, **{"reward.preset": f"powergym_{system}", "split": "all"})
    env.action_space.seed(4)
    env.reset(seed=5)
    before = read(env.task)
    soc_initial, outside, moved = before.soc, 0, 0
    for step in range(24):
        _, reward, _, truncated, info = env.step(env.action_space.sample())
        now = read(env.task)
        expected = by_formula(PUBLISHED[system], before, now, soc_initial, step == 23)
        assert reward == pytest.approx(expected, rel=1e-9)
        outside += any(
            len({v < 0.95 for v in phases} | {v > 1.05 for v in phases}) > 1 for phases in now.volts.values()
        )
        moved += int(info["gear_moves"])
        before = now
    assert truncated
    assert outside
    assert moved > 100
    env.close()


def test_every_published_system_is_a_preset_and_a_step_without_one_counts_nothing_more() -> None:
    assert {name for name in PRESETS if name.startswith("powergym")} == {f"powergym_{system}" for system in PUBLISHED}
    env = powergrid.make("ieee13_voltvar")
    told = env.task.info_names
    assert not set(PRESETS["powergym_13bus"]) & set(told)
    assert tuple(told[: len(COUNTED_TERMS)]) == COUNTED_TERMS
    env.close()


def test_exporting_feeder_has_no_ratio_of_losses() -> None:
    scenario = {
        "name": "sunny",
        "feeder": "ieee13",
        "devices": {"pv": {"kind": "inverter", "bus": "675", "p_max_kw": 9000.0}},
        "agents": {"A": {"devices": ["pv"], "zone": {"buses": ["675"]}, "pcc": "675"}},
        "reward": {"weights": {"losses_share": 1.0}},
    }
    env = powergrid.make(scenario)
    env.reset(seed=1)
    seen = set()
    while env.agents:
        *_, infos = env.step({"A": np.ones(env.action_space("A").shape, dtype=np.float32)})
        info = infos["A"]
        assert 0.0 <= info["losses_share"] <= 1.0
        seen.add(info["source_p_kw"] > 0)
        if info["source_p_kw"] <= 0:
            assert info["losses_share"] == 0.0
    assert seen == {True, False}
    env.close()


def test_a_preset_replaces_weights_scale_and_goal_of_the_scenario_and_a_goal_replaces_it() -> None:
    asked = powergrid.load_scenario("ieee13_voltvar", {"reward.preset": "powergym_13bus"})
    assert (asked.reward.scale, asked.reward.weights) == (1.0, {})
    scaled = powergrid.load_scenario("ieee13_voltvar", {"reward": {"preset": "powergym_13bus", "scale": 0.1}})
    assert scaled.reward.scale == 0.1
    found = powergrid.load_scenario("ieee13", {"reward.preset": "powergym_13bus"})
    assert (found.reward.goal, found.reward.scale) == (None, 1.0)
    back = powergrid.load_scenario(asked.to_dict(), {"reward.goal": "losses"})
    assert (back.reward.preset, back.reward.goal) == (None, "losses")
    assert powergrid.load_scenario(asked.to_dict()).digest() == asked.digest()
    with pytest.raises(ScenarioError, match="both set all weights"):
        powergrid.load_scenario("ieee13_voltvar", {"reward": {"preset": "powergym_13bus", "goal": "cost"}})
    with pytest.raises(ScenarioError, match="powergym_34bus_soc"):
        powergrid.load_scenario("ieee13_voltvar", {"reward.preset": "powergym"})
