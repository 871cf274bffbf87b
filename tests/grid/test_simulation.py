"""The simulation without any learning: demand as the profiles say, devices as set, days, positions, states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from powergrid.errors import ConvergenceError, FeederError, ScenarioError
from powergrid.grid.circuit.circuit import Snapshot
from powergrid.grid.profiles.profiles import builtin_profiles
from powergrid.grid.simulation import Simulation
from powergrid.scenario import load_scenario
from tests.envs.worlds import every_kind, find_imbalance, read_loads

Simulate = Callable[..., Simulation]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Make simulations of a scenario's data; they are closed at the end."""
    made: list[Simulation] = []

    def make(devices: dict[str, Any], n_envs: int = 1, **keys: Any) -> Simulation:
        agents = {"A": {"devices": list(devices), "zone": {"buses": ["671"]}, "pcc": "671"}}
        data = {"name": "test", "feeder": "ieee13", "devices": devices, "agents": agents} | keys
        made.append(load_scenario(data).simulate(n_envs))
        return made[-1]

    yield make
    for simulation in made:
        simulation.close()


#: Taps that keep all nodes below 1.05 pu, where loads of constant power are just that.
LOW = {"reg1": 3, "reg2": 0, "reg3": 3}
BATTERY: dict[str, Any] = {"ess": {"kind": "storage", "bus": "675", "e_max_kwh": 1000, "p_max_kw": 250}}


def start(simulation: Simulation, day: int | None = None, seed: int = 0) -> Simulation:
    for env in range(simulation.n_envs):
        simulation.reset(env, np.random.default_rng(seed), day)
    return simulation


def test_loads_draw_what_the_profiles_say(simulate: Simulate) -> None:
    simulation = start(
        simulate(BATTERY, load_scale=0.8, taps=LOW, profiles={"load_classes": {"67*": "commercial"}}), day=30
    )
    year, loads = builtin_profiles(), simulation.network.loads
    constant_power = [loads.names.index(name) for name in ("634a", "645", "671", "675a", "675c")]
    assert all(year.demand_names[simulation.series[i]].startswith("commercial") for i in constant_power[2:])
    for step in range(6):
        simulation.step(simulation.neutral())
        drawn = read_loads(simulation)[constant_power]
        share = 0.8 * year.demand_pu[30 * 96 + step][simulation.series[constant_power]]
        np.testing.assert_allclose(drawn.real, share * loads.kw[constant_power], rtol=1e-4)
        np.testing.assert_allclose(drawn.imag, share * loads.kvar[constant_power], rtol=1e-4)


def test_devices_deliver_what_is_set(simulate: Simulate) -> None:
    simulation = start(simulate({"ess": BATTERY["ess"] | {"reactive": True, "s_max_kva": 300}}))
    for p, q in ((1.0, 0.0), (-1.0, 0.4), (0.3, -0.5)):
        simulation.step(np.array([[p, q]]))
        delivered = simulation.snapshot.device_kva[0, 0]
        assert delivered.real == pytest.approx(250 * p, rel=1e-4)
        assert delivered.imag == pytest.approx(300 * q, rel=1e-4, abs=0.05)
        assert abs(find_imbalance(simulation)) < 0.05


def test_bound_loads_draw_the_share_that_is_set(simulate: Simulate) -> None:
    devices = {"flex": {"kind": "flexible_load", "element": "Load.671", "owed_max_kwh": 5000, "share_min": 0.5}}
    simulation = start(simulate(devices, taps=LOW), day=10)
    at = simulation.network.loads.names.index("671")
    for action, share in ((-1.0, 0.5), (-1.0, 0.5), (1.0, 1.3)):
        demand = simulation.day_load_kw[0, simulation.step_index[0], at]
        simulation.step(np.array([[action]]))
        drawn = read_loads(simulation)[at]
        assert drawn.real == pytest.approx(share * demand, rel=1e-4)
        assert drawn.imag == pytest.approx(share * demand * 660 / 1155, rel=1e-4)
        assert simulation.snapshot.device_kva[0, 0] == pytest.approx(-drawn, rel=1e-6)
    assert simulation.fleets[0].states[2].high == pytest.approx(1155 * builtin_profiles().demand_pu.max())


def test_ratings_left_out_come_from_the_element(tmp_path: Path, simulate: Simulate) -> None:
    scenario = every_kind("ieee13", tmp_path)
    simulation = load_scenario(scenario).simulate()
    specs = simulation.devices
    assert (specs["ess"].e_max_kwh, specs["ess"].p_max_kw, specs["ess"].s_max_kva) == (1000, 250, 300)
    assert (specs["pv"].p_max_kw, specs["pv"].s_max_kva) == (400, 440)
    assert (specs["gen"].p_max_kw, specs["gen"].s_max_kva) == (500, 600)
    assert (specs["cap"].steps, specs["cap"].steps_initial) == (1, 1)
    assert specs["sw"].closed_initial is True
    simulation.close()
    scenario["devices"]["ess"]["e_max_kwh"] = 700
    simulation = load_scenario(scenario).simulate()
    assert (simulation.devices["ess"].e_max_kwh, simulation.devices["ess"].p_max_kw) == (700, 250)
    simulation.close()


def test_positions_at_the_start_are_those_of_the_scenario(simulate: Simulate) -> None:
    devices = {
        "reg": {"kind": "regulator", "element": "RegControl.reg1", "tap_initial": -2},
        "own": {"kind": "regulator", "element": "RegControl.reg2"},
        "cap": {"kind": "capacitor", "element": "Capacitor.cap2", "steps_initial": 0},
        "sw": {"kind": "switch", "element": "Line.684652", "closed_initial": False},
    }
    simulation = simulate(devices, taps={"reg2": 5, "reg3": 9}, steps_on={"cap1": 0})
    circuit = simulation.circuits[0]
    for seed in range(2):
        start(simulation, seed=seed)
        assert circuit.taps.tolist() == [-2, 5, 9]
        assert circuit.steps_on.tolist() == [0, 0]
        assert simulation.snapshot.v_pu[0, simulation.network.nodes.index("652.1")] < 0.01
        assert simulation.operations.tolist() == [0]
        simulation.step(simulation.neutral())
        assert simulation.operations.tolist() == [0]
        simulation.step(np.array([[1.0, 20.0, 16.0, 1.0]]))  # capacitor, taps 4 and 0, switch
        assert circuit.taps.tolist() == [4, 0, 9]
        assert circuit.steps_on.tolist() == [0, 1]
        assert simulation.operations.tolist() == [1 + 6 + 5 + 1]
        assert simulation.snapshot.v_pu[0, simulation.network.nodes.index("652.1")] > 0.9


def test_native_controls_move_taps_and_count_as_operations(simulate: Simulate) -> None:
    still, native = simulate(BATTERY, taps={"reg1": -10}), simulate(BATTERY, taps={"reg1": -10}, native_controls=True)
    for simulation in (still, native):
        start(simulation, day=20)
        simulation.step(simulation.neutral())
    assert still.circuits[0].taps[0] == -10
    assert native.circuits[0].taps[0] > -10
    moved = 0
    for _ in range(60):
        native.step(native.neutral())
        moved += native.operations[0]
    assert moved > 0


def test_restore_of_a_state_plays_the_same_future(tmp_path: Path) -> None:
    simulation = load_scenario(every_kind("ieee13", tmp_path)).simulate(2)
    start(simulation)
    rng = np.random.default_rng(1)
    ranges = [(0, spec.n - 1) if spec.discrete else (-1, 1) for spec in simulation.actions]
    discrete = np.array([spec.discrete for spec in simulation.actions])
    low, high = np.array(ranges, dtype=float).T

    def draw() -> Any:
        action = rng.uniform(low, high, (2, len(low)))
        return np.where(discrete, np.rint(action), action)

    for _ in range(10):
        simulation.step(draw())
    kept, actions = simulation.state(), [draw() for _ in range(10)]
    futures = []
    for _ in range(2):
        for action in actions:
            simulation.step(action)
        futures.append({name: value.copy() for name, value in vars(simulation.snapshot).items()})
        simulation.restore(kept)
    for name, value in futures[0].items():
        np.testing.assert_array_equal(value, futures[1][name], err_msg=name)
    simulation.close()


def test_reset_of_several_at_once_gives_what_one_after_the_other_does(tmp_path: Path) -> None:
    scenario = load_scenario(every_kind("ieee13", tmp_path))
    together, alone = scenario.simulate(4), scenario.simulate(4)
    ranges = [(0, spec.n - 1) if spec.discrete else (-1, 1) for spec in together.actions]
    action = np.tile([high for _, high in ranges], (4, 1)).astype(np.float64)
    streams = [[np.random.default_rng(env) for env in range(4)] for _ in range(2)]
    for envs in ([0, 1, 2, 3], [0, 3]):  # all of them, then some while the others go on
        together.reset_all(envs, [streams[0][env] for env in envs])
        for env in envs:
            alone.reset(env, streams[1][env])
        for _ in range(3):
            together.step(action)
            alone.step(action)
            for name, value in vars(alone.snapshot).items():
                np.testing.assert_array_equal(getattr(together.snapshot, name), value, err_msg=name)
            assert together.day.tolist() == alone.day.tolist()
            assert len(set(together.day.tolist())) > 2
    for own, other in zip(together.fleets, alone.fleets, strict=True):
        for name, value in other.state_dict().items():
            np.testing.assert_array_equal(own.state_dict()[name], value, err_msg=f"{own.kind}.{name}")
    together.close()
    alone.close()


def test_clock_shows_the_row_to_come_and_what_was_paid(simulate: Simulate) -> None:
    simulation = start(simulate(BATTERY, episode_length=3), day=50)
    prices = builtin_profiles().price_usd_per_kwh["time_of_use"][50 * 96 :]
    assert (simulation.price_usd_per_kwh[0], simulation.paid_price[0]) == (prices[0], prices[0])
    for step in range(3):
        simulation.step(simulation.neutral())
        assert simulation.paid_price[0] == prices[step]
        assert simulation.price_usd_per_kwh[0] == prices[min(step + 1, 2)]
        assert simulation.step_index[0] == step + 1
    start(simulation, day=51)
    assert simulation.paid_price[0] == prices[96]


def test_reset_draws_days_of_the_split_by_the_generator(simulate: Simulate) -> None:
    simulation = simulate(BATTERY, split="test")
    days = [int(start(simulation, seed=seed).day[0]) for seed in range(30)]
    assert set(days) <= set(simulation.days.tolist())
    assert len(set(days)) > 15
    assert days == [int(start(simulation, seed=seed).day[0]) for seed in range(30)]


def test_environments_of_one_simulation_are_independent(simulate: Simulate) -> None:
    simulation = simulate(BATTERY, n_envs=2)
    for env, day in enumerate((3, 200)):
        simulation.reset(env, np.random.default_rng(0), day)
    simulation.step(np.array([[1.0], [-1.0]]))
    assert simulation.snapshot.device_kva[:, 0].real == pytest.approx([250, -250], rel=1e-3)
    assert simulation.day.tolist() == [3, 200]
    kept = simulation.snapshot.v_pu[1].copy()
    simulation.reset(0, np.random.default_rng(0), 4)
    np.testing.assert_array_equal(simulation.snapshot.v_pu[1], kept)
    assert simulation.step_index.tolist() == [0, 1]


def test_own_profiles_drive_demand_price_and_sun(simulate: Simulate) -> None:
    index = pd.date_range("2023-01-02", periods=24 * 2, freq="h")
    table = pd.DataFrame(
        {
            "demand_pu:flat": 0.5,
            "pv_pu": np.tile(np.r_[np.zeros(8), np.full(8, 0.75), np.zeros(8)], 2),
            "price_usd_per_kwh:mine": np.r_[np.full(24, 0.1), np.full(24, 0.4)],
        },
        index=index,
    )
    devices = {"pv": {"kind": "inverter", "bus": "675", "p_max_kw": 200}}
    profiles = {"source": table, "tariff": "mine"}
    simulation = start(simulate(devices, profiles=profiles, step_minutes=60, episode_length=24, split="all"), day=1)
    for hour in range(10):
        simulation.step(simulation.neutral())
        assert simulation.paid_price[0] == 0.4
        assert simulation.snapshot.device_kva[0, 0].real == pytest.approx(150.0 if hour >= 8 else 0.0, abs=0.05)
        at = simulation.network.loads.names.index("675a")
        assert read_loads(simulation)[at].real == pytest.approx(0.5 * 485, rel=1e-4)


def test_inverters_without_sun_in_the_profiles_raise(simulate: Simulate) -> None:
    index = pd.date_range("2023-01-02", periods=24, freq="h")
    table = pd.DataFrame({"demand_pu:flat": 0.5, "price_usd_per_kwh": 0.1}, index=index)
    devices = {"pv": {"kind": "inverter", "bus": "675", "p_max_kw": 200}}
    keys = {"step_minutes": 60, "episode_length": 24, "split": "all"}
    with pytest.raises(ScenarioError, match="inverters need pv_pu, or irradiance_pu with temperature_c"):
        simulate(devices, profiles={"source": table, "tariff": "price"}, **keys)


def test_step_that_diverges_keeps_the_last_good_state_and_recovers(simulate: Simulate) -> None:
    devices = {"giant": {"kind": "storage", "bus": "611", "phases": [3], "e_max_kwh": 1e6, "p_max_kw": 6e4}}
    simulation = start(simulate(devices, divergence={"policy": "hold"}))
    good = simulation.snapshot.v_pu.copy()
    simulation.step(np.ones((1, 1)))
    assert simulation.snapshot.converged.tolist() == [False]
    np.testing.assert_array_equal(simulation.snapshot.v_pu, good)
    simulation.step(simulation.neutral())
    assert simulation.snapshot.converged.tolist() == [True]
    assert np.isfinite(simulation.fleets[0].soc).all()
    strict = start(simulate(devices, divergence={"policy": "raise"}), day=5)
    with pytest.raises(ConvergenceError, match="did not converge in environment 0, day 5, step 0"):
        strict.step(np.ones((1, 1)))


def test_environment_that_diverges_leaves_the_others_their_step(simulate: Simulate) -> None:
    devices = {
        "giant": {"kind": "storage", "bus": "611", "phases": [3], "e_max_kwh": 1e6, "p_max_kw": 6e4},
        "reg": {"kind": "regulator", "element": "RegControl.reg1"},
    }
    simulation = start(simulate(devices, n_envs=3, divergence={"policy": "hold"}))
    alone = start(simulate(devices))
    neutral = simulation.neutral()
    simulation.step(neutral)
    alone.step(neutral[:1])
    before = {name: value.copy() for name, value in vars(simulation.snapshot).items()}
    action = simulation.neutral()
    action[1, 0] = 1.0
    action[:, 1] += 1.0  # a tap that moves changes the branch flows that the diverged rows must not follow
    simulation.step(action)
    alone.step(action[:1])
    assert simulation.snapshot.converged.tolist() == [True, False, True]
    for name, value in vars(simulation.snapshot).items():
        if name != "converged":
            np.testing.assert_array_equal(value[1], before[name][1], err_msg=name)
            np.testing.assert_array_equal(value[[0, 2]], vars(alone.snapshot)[name][[0, 0]], err_msg=name)
    assert not np.array_equal(simulation.snapshot.v_pu[0], before["v_pu"][0])
    for _ in range(2):
        simulation.step(simulation.neutral())
    assert simulation.snapshot.converged.all()
    np.testing.assert_allclose(simulation.snapshot.v_pu[1], simulation.snapshot.v_pu[0], atol=1e-3)


def test_simulation_wrong_references_lists_all(tmp_path: Path) -> None:
    """Devices handed to the simulation without a scenario are checked as well."""
    scenario = load_scenario(every_kind("ieee13", tmp_path))
    specs = dict(scenario.devices)
    specs["reg"] = specs["reg"].model_copy(update={"element": "RegControl.reg9"})
    specs["cap"] = specs["cap"].model_copy(update={"element": "Capacitor.none"})
    good = scenario.simulate()
    with pytest.raises(FeederError, match="has 2 problems") as caught:
        Simulation(good.feeder, specs, builtin_profiles(), good.options)
    assert caught.value.problems == (
        "device 'cap': unknown Capacitor 'none'; allowed: cap1, cap2",
        "device 'reg': unknown RegControl 'reg9' (did you mean 'reg3' or 'reg2' or 'reg1'?)",
    )
    good.close()


@pytest.mark.parametrize("name", ["ieee13_mg", "ieee34_mg", "ieee123_mg", "ieee34_voltvar"])
def test_solve_from_the_last_solution_agrees_with_a_cold_start(name: str) -> None:
    simulation = load_scenario(name).simulate()
    circuit, rng = simulation.circuits[0], np.random.default_rng(0)
    simulation.reset(0, rng)
    cold = Snapshot.allocate(1, simulation.network, len(simulation.power_device_names))
    warm_iterations = cold_iterations = 0
    for _ in range(12):
        drawn = [rng.integers(a.n) if a.discrete else rng.uniform(-1.0, 1.0) for a in simulation.actions]
        simulation.step(np.array([drawn], dtype=np.float64))
        warm_iterations += circuit.engine.iterations
        circuit.restart(np.zeros(len(simulation.network.nodes), dtype=bool))
        assert circuit.solve()
        cold_iterations += circuit.engine.iterations
        circuit.read(cold, 0)
        np.testing.assert_allclose(simulation.snapshot.v_pu, cold.v_pu, atol=10.0 * simulation.options.tolerance)
        np.testing.assert_allclose(simulation.snapshot.losses_kw, cold.losses_kw, rtol=1e-3)
        np.testing.assert_allclose(simulation.snapshot.source_kva, cold.source_kva, rtol=1e-3)
    if name.endswith("_mg"):  # with taps that jump at random the last solution is no nearer than the start
        assert warm_iterations < cold_iterations
    simulation.close()


def test_days_are_drawn_as_often_as_they_weigh() -> None:
    scenario = load_scenario("ieee13_mg")
    days = load_scenario(scenario).simulate(1).days
    weights = {int(day): 0.0 for day in days} | {3: 3.0, 5: 1.0}
    weighed = load_scenario(scenario, {"day_weights": weights})
    calendar = weighed.simulate(1).calendar
    drawn = list[int]()
    for seed in range(400):
        calendar.start(slice(None), [0], [np.random.default_rng(seed)], None)
        drawn.append(int(calendar.day[0]))
    assert set(drawn) == {3, 5}
    assert drawn.count(3) / 400 == pytest.approx(0.75, abs=0.08)
    assert weighed.digest() == scenario.digest()
    # days of another split are drawn as if there were no weights
    elsewhere = [load_scenario(scenario, {"split": "test", "day_weights": own}).simulate(1) for own in ({}, weights)]
    for simulation in elsewhere:
        simulation.reset(0, np.random.default_rng(7))
    assert elsewhere[0].calendar.day.tolist() == elsewhere[1].calendar.day.tolist()
    nothing = load_scenario(scenario, {"day_weights": dict.fromkeys(weights, 0.0)}).simulate(1)
    with pytest.raises(ScenarioError, match="all 260 days of split 'train' weigh 0"):
        nothing.reset(0, np.random.default_rng(0))
