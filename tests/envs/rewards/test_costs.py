"""Costs of constrained learning beside the reward, and how much infos hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ScenarioError
from powergrid.scenario import load_scenario
from tests.envs.worlds import draw_action, draw_actions

MakeEnv = Callable[..., NetworkedGridEnv]
#: Much is outside a band and above a rating that are narrow.
STRICT: dict[str, Any] = {
    "voltage.v_min_pu": 0.99, "voltage.v_max_pu": 1.01, "norm_amps": {"Line.650632": 200}, "episode_length": 6,
    "step_minutes": 30,
}  # fmt: skip


def test_costs_of_agents_add_up_to_those_of_the_network(make_env: MakeEnv) -> None:
    names = ["node_hours", "branch_hours", "voltage_violation_pu", "overload_pu"]
    env = make_env("ieee13_mg", costs={"of": names}, **STRICT)
    env.reset(seed=2)
    rng, seen = np.random.default_rng(0), np.zeros(4)
    for _ in range(6):
        _, _, _, _, infos = env.step(draw_actions(env, rng))
        one, metrics = infos["MG1"], env.task.metrics
        totals = {name: sum(info[f"cost_{name}"] for info in infos.values()) for name in names}
        assert totals["node_hours"] == pytest.approx(one["network_violations"] * 0.5)
        assert totals["branch_hours"] == pytest.approx(one["network_overloads"] * 0.5)
        assert totals["voltage_violation_pu"] == pytest.approx(one["network_violation_pu"])
        assert totals["overload_pu"] == pytest.approx(metrics.overload_sum_pu[0])
        for info in infos.values():
            assert info["cost"] == pytest.approx(sum(info[f"cost_{name}"] for name in names))
        seen += list(totals.values())
    assert seen.min() > 0.0


def test_agents_that_share_the_reward_share_the_costs(make_env: MakeEnv) -> None:
    alone, shared = (make_env("ieee13_mg", costs={}, share_reward=each, **STRICT) for each in (False, True))
    actions = draw_actions(alone, np.random.default_rng(1))
    own, mean = ((env.reset(seed=5), env.step(actions)[4])[1] for env in (alone, shared))
    for name in ("cost", "cost_node_hours", "cost_branch_hours"):
        each = [info[name] for info in own.values()]
        assert [info[name] for info in mean.values()] == pytest.approx([np.mean(each)] * len(each))
    assert own["MG1"]["cost"] != own["MG2"]["cost"]


def test_costs_left_out_of_the_reward_have_no_weight_there(make_env: MakeEnv) -> None:
    told = make_env("ieee13_mg", costs={}, **STRICT)
    left = make_env("ieee13_mg", costs={"in_reward": False, "of": ["node_hours", "unserved_kwh"]}, **STRICT)
    plain = make_env("ieee13_mg", **STRICT)
    weights = {term: plain.scenario.weight_of(term) for term in ("voltage_violation_pu", "overload_pu", "unserved_kwh")}
    assert min(weights.values()) > 0.0
    assert [left.scenario.weight_of(term) for term in weights] == [0.0, 0.0, 0.0]
    actions = draw_actions(plain, np.random.default_rng(1))
    results = [(env.reset(seed=5), env.step(actions))[1] for env in (plain, told, left)]
    assert results[0][1] == results[1][1]
    for agent, info in results[0][4].items():
        assert "cost" not in info
        penalty = plain.scenario.reward.scale * sum(weight * info[term] for term, weight in weights.items())
        assert penalty > 0.0
        assert results[2][1][agent] == pytest.approx(results[0][1][agent] + penalty)
    with pytest.raises(ScenarioError, match=r"costs.of.*'node_hour'"):
        load_scenario("ieee13_mg", {"costs": {"of": ["node_hour"]}})
    with pytest.raises(ScenarioError, match="names one twice"):
        load_scenario("ieee13_mg", {"costs": {"of": ["node_hours", "node_hours"]}})


def test_scenario_without_costs_keeps_its_digest() -> None:
    plain = load_scenario("ieee13_mg")
    same = load_scenario("ieee13_mg", {"infos": "none"})
    assert plain.digest() == same.digest()
    assert plain.digest() != load_scenario("ieee13_mg", {"costs": {}}).digest()


@pytest.mark.parametrize("level", ["none", "terms", "numbers"])
@pytest.mark.parametrize("costs", [None, {}])
def test_infos_hold_as_much_as_they_are_asked_to_on_every_face(level: str, costs: Any) -> None:
    keys: dict[str, Any] = {"infos": level, "costs": costs, **STRICT, "episode_length": 2}
    told = {"cost", "cost_node_hours", "cost_branch_hours"} if costs is not None else set()
    full = NetworkedGridEnv({"env_name": "ieee13_mg", **keys, "infos": "numbers"})
    rllib, team = NetworkedGridEnv({"env_name": "ieee13_mg", **keys}), powergrid.make("ieee13_mg", **keys)
    one = powergrid.make_central("ieee13_mg", **keys)
    several = powergrid.make_vector("ieee13_mg", 2, view="central", autoreset_mode=AutoresetMode.SAME_STEP, **keys)
    agents = powergrid.make_vector("ieee13_mg", 2, **keys)
    for env in (full, rllib, team, one, several, agents):
        env.reset(seed=1)
    actions = draw_actions(full, np.random.default_rng(3))
    whole, infos, same = (env.step(actions)[-1] for env in (full, rllib, team))
    assert infos == same
    for agent, info in infos.items():
        terms = {name for name in whole[agent] if name in full.task.info_names[: -len(full.task.info_metrics)]}
        wanted = {"none": told, "terms": terms | told, "numbers": set(whole[agent])}[level]
        assert set(info) == wanted
        assert info == {name: whole[agent][name] for name in wanted}
    action = draw_action(one.action_space, np.random.default_rng(4))
    alone = one.step(action)[-1]
    money = {"cost_usd"} if level != "none" else set()
    assert set(alone) == {name for info in infos.values() for name in info} | money
    *_, batch = several.step(np.stack([action, action]))
    assert {name for name in batch if not name.startswith("_")} == set(alone)
    for name, value in alone.items():
        assert batch[name][0] == pytest.approx(value, rel=1e-9, abs=1e-9)
    *_, batch = several.step(np.stack([action, action]))
    ended = {name for name in batch["final_info"] if not name.startswith("_")}
    assert ended == set(alone)
    agents.step({name: np.stack([own, own]) for name, own in actions.items()})
    assert agents.info_dicts(0) == infos
    assert agents.infos().shape[2] == len(agents.info_names)
    for env in (full, rllib, team, one, several, agents):
        env.close()
