"""Rewards by hand: every term from the profiles, the snapshot or the devices, then their weighted sum."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.grid.profiles.profiles import builtin_profiles
from powergrid.quantities import COUNTED_TERMS, TERMS
from powergrid.scenario import REWARD_WEIGHTS
from powergrid.scenario.vocabulary import GOALS
from tests.envs.worlds import average, draw_actions, every_kind, fill_actions, find_imbalance, play, read_loads

MakeEnv = Callable[..., NetworkedGridEnv]
#: Terms that `penalty` multiplies.
PENALISED = ("voltage_violation_pu", "overload_pu")
#: What shipped scenarios of microgrids ask for besides the energy that a zone imports.
PAID = {"shared_losses_usd": 1.0, "reactive_kvarh": 0.005, "infeasible_kwh": 0.02}


def test_reward_is_minus_scale_times_the_weighted_terms(shipped: str, make_env: MakeEnv) -> None:
    env = make_env(shipped, share_reward=False)
    for moment in play(env, seed=6):
        for agent, reward in moment.rewards.items():
            told = moment.infos[agent]
            weighed = sum(told[term] * env.scenario.weight_of(term) for term in TERMS if term in told)
            assert reward == pytest.approx(-env.scenario.reward.scale * weighed, rel=1e-9, abs=1e-12)


def test_weights_of_a_scenario_replace_the_default_and_penalty_multiplies_violations(make_env: MakeEnv) -> None:
    weights = {"energy_cost_usd": 0.0, "losses_kwh": 0.5, "voltage_violation_pu": 2.0}
    env = make_env(reward={"weights": weights, "scale": 1.0}, penalty=10.0)
    expected = REWARD_WEIGHTS | weights | {"overload_pu": 0.5, **PAID}  # which the shipped scenario sets
    # others have no weight here, and are not counted
    expected = {term: expected[term] * (10.0 if term in PENALISED else 1.0) for term in (*COUNTED_TERMS, *PAID)}
    assert dict(zip(env.describe().rewards["term"], env.describe().rewards["weight"], strict=True)) == expected
    *_, last = play(env, seed=0, steps=20)
    for agent, reward in last.rewards.items():
        assert reward == pytest.approx(-sum(last.infos[agent][term] * weight for term, weight in expected.items()))


def test_reactive_power_of_customers_is_nobodys_decision(make_env: MakeEnv) -> None:
    env = make_env("ieee34_mg")
    env.reset(seed=0)
    task = env.task
    task.action_buffer()[:] = task.simulation.neutral()
    task.step()
    names = task.simulation.power_device_names
    drawn = [task.simulation.powers.delivered[1, 0, names.index(name)] for name in ("flex_1", "flex_2", "flex_3")]
    assert np.abs(drawn).sum() > 50.0
    assert all(info["reactive_kvarh"] == pytest.approx(0.0, abs=1e-3) for info in task.info_dicts(0).values())


def test_shared_losses_reactive_power_and_what_is_infeasible_are_paid_for(make_env: MakeEnv) -> None:
    env = make_env()
    network, agents = env.task.simulation.network, env.scenario.agents
    zones = [set(spec.zone.find_buses(network)) for spec in agents.values()]
    outside = [not any(set(own) <= zone for zone in zones) for own in network.branches.buses]
    terminals = np.array(outside)[network.branches.terminal_branch]
    hours = env.scenario.step_minutes / 60
    for moment in itertools.islice(play(env, seed=6), 1, 30):
        simulation = env.task.simulation
        lost_kw = simulation.snapshot.terminal_kva[0, terminals].real.sum()
        for agent, told in moment.infos.items():
            assert told["shared_losses_usd"] == pytest.approx(lost_kw * told["price_usd_per_kwh"] * hours / len(agents))
            # of generators no agent decides the reactive power
            inverters = [name for name in agents[agent].devices if not name.startswith("gen")]
            own = [simulation.power_device_names.index(name) for name in inverters]
            assert told["reactive_kvarh"] == pytest.approx(np.abs(simulation.powers.delivered[1, 0, own]).sum() * hours)
            assert told["infeasible_kwh"] == pytest.approx(told["projection_kw"] * hours)


@pytest.mark.parametrize("goal", GOALS)
def test_a_goal_sets_the_weights_that_are_not_named(goal: str, make_env: MakeEnv) -> None:
    env = make_env(reward={"goal": goal, "scale": 1.0}, penalty=10.0)
    weights = {term: env.scenario.weight_of(term) for term in TERMS}
    assert weights["voltage_violation_pu"] == 10.0
    assert weights == {t: GOALS[goal].get(t, 0.0) * (10.0 if t in PENALISED else 1.0) for t in TERMS}
    *_, last = play(env, seed=0, steps=20)
    for agent, reward in last.rewards.items():
        told = last.infos[agent]
        assert reward == pytest.approx(-sum(told.get(term, 0.0) * weight for term, weight in weights.items()))


def test_rises_of_the_peak_add_up_to_the_peak_of_the_day_and_are_seen(make_env: MakeEnv) -> None:
    env = make_env(reward={"goal": "peak"})
    index = {agent: env.describe().observations.query("agent == @agent")["name"].tolist() for agent in env.agents}
    for seed in (3, 4):  # the second episode begins anew
        rises, imports = [], []
        for moment in play(env, seed=seed):
            infos = moment.infos
            if "peak_rise_kw" not in next(iter(infos.values())) or env.task.simulation.step_index[0] == 0:
                continue
            rises.append(sum(info["peak_rise_kw"] for info in infos.values()))
            imports.append(next(iter(infos.values()))["source_p_kw"])
            assert sum(rises) == pytest.approx(max(imports))
            for agent, names in index.items():
                place = names.index("world.peak_import_kw")
                high = env.describe().observations.query("agent == @agent")["high"].iloc[place]
                assert moment.observations[agent][place] == pytest.approx(2 * max(imports) / high - 1, abs=1e-6)


def test_energy_cost_is_price_of_the_step_times_import_times_hours(shipped: str, make_env: MakeEnv) -> None:
    env = make_env(shipped)
    prices = average(builtin_profiles().price_usd_per_kwh[env.scenario.profiles.tariff], env)
    hours, horizon = env.scenario.step_minutes / 60, env.scenario.episode_length
    for t, moment in enumerate(play(env, seed=6)):
        for agent, info in moment.infos.items():
            price = prices[horizon * info["day"] + max(t - 1, 0)]
            assert info["price_usd_per_kwh"] == pytest.approx(price, rel=1e-12)
            if t:
                assert info["energy_cost_usd"] == pytest.approx(price * info["import_kw"] * hours, abs=1e-9), agent


def test_import_of_a_zone_is_its_loads_and_losses_less_its_devices(shipped: str, make_env: MakeEnv) -> None:
    env = make_env(shipped)
    simulation = env.task.simulation
    network, branches = simulation.network, simulation.network.branches
    *_, moment = play(env, seed=2, steps=50)
    loads, flows = read_loads(simulation).real, simulation.snapshot.terminal_kva[0].real
    for agent in env.task.agents:
        zone = env.scenario.agents[agent.name].zone.find_buses(network)
        inside = np.isin(branches.terminal_bus, zone) | (branches.terminal_bus < 0)
        touches = np.zeros(len(branches.names), dtype=bool)
        np.logical_or.at(touches, branches.terminal_branch, np.isin(branches.terminal_bus, zone))
        crosses = np.zeros(len(branches.names), dtype=bool)
        np.logical_or.at(crosses, branches.terminal_branch, ~inside)
        losses = flows[(touches & ~crosses)[branches.terminal_branch]].sum()
        own = np.isin(network.loads.bus, zone)
        devices = [i for i, name in enumerate(simulation.power_device_names) if _bus_of(env, name) in zone]
        expected = loads[own].sum() + losses - simulation.snapshot.device_kva[0, devices].sum().real
        assert moment.infos[agent.name]["import_kw"] == pytest.approx(expected, abs=1e-4 * network.loads.kw.sum())


def _bus_of(env: NetworkedGridEnv, device: str) -> int:
    """Return the bus of a device; -1 for one that is a load, which is read with the loads."""
    spec = env.scenario.devices[device]
    return env.task.simulation.network.bus_index[spec.bus.lower()] if getattr(spec, "bus", None) else -1


def test_violation_terms_follow_voltages_and_loadings_by_hand(shipped: str, make_env: MakeEnv) -> None:
    env = make_env(shipped, load_scale=2.0)
    simulation = env.task.simulation
    network, branches = simulation.network, simulation.network.branches
    zones = {name: spec.zone.find_buses(network) for name, spec in env.scenario.agents.items()}
    first_terminal = dict(zip(branches.terminal_branch[::-1].tolist(), branches.terminal_bus[::-1], strict=True))
    first = [first_terminal[i] for i in range(len(branches.names))]
    seen = 0
    for moment in play(env, seed=6, steps=80):
        snapshot = simulation.snapshot
        outside = np.array([max(v - 1.05, 0.95 - v, 0.0) for v in snapshot.v_pu[0]])
        over = np.maximum(snapshot.loading_pu[0] - 1.0, 0.0)
        assert env.count_violations() == (outside > 0).sum() == moment.infos[env.agents[0]]["network_violations"]
        homeless = ~np.isin(network.node_bus, [*itertools.chain(*zones.values())])
        homeless_branches = ~np.isin(first, [*itertools.chain(*zones.values())])
        for agent, zone in zones.items():
            inside, near = np.isin(network.node_bus, zone), np.isin(first, zone)
            assert env.count_violations(agent) == (outside[inside] > 0).sum()
            if moment.rewards:
                info = moment.infos[agent]
                shared = outside[inside].sum() + outside[homeless].sum() / len(zones)
                assert info["voltage_violation_pu"] == pytest.approx(shared, abs=1e-9)
                shared = over[near].sum() + over[homeless_branches].sum() / len(zones)
                assert info["overload_pu"] == pytest.approx(shared, abs=1e-9)
                assert info["zone_overloads"] == (over[near] > 0).sum()
                seen += int(outside.any()) + int(over.any())
    assert seen > 20


def test_compute_cost_is_money_and_sums_over_agents(every_kind_scenario: dict[str, Any], make_env: MakeEnv) -> None:
    env = make_env(every_kind_scenario)
    money = ("energy_cost_usd", "generation_cost_usd", "storage_wear_usd", "switching_wear_usd")
    for t, moment in enumerate(play(env, seed=6, steps=30)):
        if t:
            costs = {agent: env.compute_cost(agent) for agent in env.agents}
            for agent, info in moment.infos.items():
                assert costs[agent] == pytest.approx(sum(info[term] for term in money))
            assert env.compute_cost() == pytest.approx(sum(costs.values()))


def test_share_reward_gives_every_agent_the_mean(make_env: MakeEnv) -> None:
    own, shared = make_env(), make_env(share_reward=True)
    for one, other in zip(play(own, seed=1, steps=30), play(shared, seed=1, steps=30), strict=True):
        if one.rewards:
            mean = np.mean(list(one.rewards.values()))
            assert list(other.rewards.values()) == pytest.approx([mean, mean])


def test_stored_energy_telescopes_to_what_left_the_batteries(make_env: MakeEnv) -> None:
    env = make_env()
    moments = list(play(env, seed=1))
    simulation = env.task.simulation
    mean_price = builtin_profiles().price_usd_per_kwh["time_of_use"].reshape(-1, 96)[simulation.day[0]].mean()
    soc = dict(zip(simulation.fleets[0].names, simulation.fleets[0].soc[0], strict=True))
    for agent, device, e_max in (("MG1", "ess_1", 3200), ("MG2", "ess_2", 1200)):
        total = sum(moment.infos[agent]["stored_energy_usd"] for moment in moments)
        assert total == pytest.approx((0.5 - soc[device]) * e_max * mean_price)
        assert soc[device] != 0.5


def owing(episode_length: int = 8) -> dict[str, Any]:
    """A flexible load that can put off plenty, and a station whose cars stay beyond the end of the episode."""
    return {
        "name": "owing", "feeder": "ieee13", "episode_length": episode_length, "step_minutes": 60,
        "devices": {
            "flex": {"kind": "flexible_load", "element": "Load.671", "owed_max_kwh": 2000, "share_min": 0.5},
            "cars": {"kind": "ev_charger", "bus": "634", "ports": 20, "p_max_kw": 11, "arrival_hour_mean": 1,
                     "arrival_hour_std": 0.5, "stay_hours_mean": 4, "stay_hours_std": 0.5, "energy_kwh_mean": 30},
        },
        "agents": {
            "Load": {"devices": ["flex"], "zone": {"buses": ["671"]}, "pcc": "671"},
            "Cars": {"devices": ["cars"], "zone": {"buses": ["634"]}, "pcc": "634"},
        },
    }  # fmt: skip


def test_unserved_of_a_flexible_load_counts_once_at_the_end(make_env: MakeEnv) -> None:
    env = make_env(owing())
    env.reset(seed=0)
    for t in range(8):
        *_, infos = env.step(fill_actions(env, -1.0))
        expected = env.task.simulation.fleets[0].owed_kwh[0, 0] if t == 7 else 0.0
        assert infos["Load"]["unserved_kwh"] == pytest.approx(expected)
    assert expected > 100.0
    _, infos = env.reset()
    assert infos["Load"]["unserved_kwh"] == 0.0
    *_, infos = env.step(fill_actions(env, 1.0))
    assert infos["Load"]["unserved_kwh"] == 0.0


@pytest.mark.parametrize("hours", [3, 8, 24])
def test_unserved_of_cars_over_an_episode_is_what_cannot_be_had_any_more(hours: int, make_env: MakeEnv) -> None:
    """Nobody charges: each car's energy counts when it leaves, or at the end as far as it cannot be had any more."""
    env = make_env(owing(hours))
    env.reset(seed=0)
    fleet = env.task.simulation.fleets[1]
    asked = fleet.arriving_kwh[0, :hours].sum()
    unserved = 0.0
    for _ in range(hours):
        *_, infos = env.step(fill_actions(env, -1.0))
        unserved += infos["Cars"]["unserved_kwh"]
    still_possible = (
        np.minimum(fleet.port_owed_kwh, fleet.port_steps_left * 11 * 0.92).sum() - fleet.arriving_kwh[0, hours].sum()
    )
    assert unserved == pytest.approx(asked - still_possible)
    assert unserved > 50.0
    env.reset(seed=0)
    assert sum(env.step(fill_actions(env, 1.0))[4]["Cars"]["unserved_kwh"] for _ in range(hours)) < 0.35 * unserved


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    env = powergrid.make(every_kind("ieee13", tmp_path_factory.mktemp("feeder")), episode_length=10000, split="all",
                         step_minutes=15)  # fmt: skip
    yield env
    env.close()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 8), day=st.integers(0, 200))
def test_power_balance_any_actions_on_any_day_holds(all_kinds: Any, seed: int, steps: int, day: int) -> None:
    all_kinds.reset(seed=seed, options={"day": day})
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        _, rewards, _, _, infos = all_kinds.step(draw_actions(all_kinds, rng))
        assert infos["North"]["converged"] == 1.0
        assert abs(find_imbalance(all_kinds.task.simulation)) < 0.5  # of 3,466 kW; the solve ends within 1e-5 pu
        assert all(np.isfinite(list(rewards.values())))
