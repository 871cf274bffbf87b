"""Action masks are true: what is masked out would have been moved elsewhere, what is admitted is delivered as asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test

import powergrid
from powergrid.envs import CentralGridEnv, NetworkedGridEnv
from powergrid.envs.core import GridTask
from powergrid.envs.masks import as_sample_mask
from powergrid.errors import ActionError, ScenarioError
from powergrid.grid.feeder.feeder import find_feeder
from powergrid.scenario import load_scenario
from powergrid.training.rllib.planning.facts import probe_env
from powergrid.training.rllib.planning.problems import space_problems

#: Every limit of positions: of the range, at once, in a day, by rest, by charge.
LIMITED: dict[str, Any] = {
    "name": "limited",
    "feeder": "ieee13",
    "episode_length": 24,
    "devices": {
        "small": {"kind": "storage", "bus": "675", "e_max_kwh": 90, "p_max_kw": 120, "levels": 7, "standby_loss_kw": 2},
        "any": {"kind": "storage", "bus": "671", "e_max_kwh": 120, "p_max_kw": 100, "p_charge_max_kw": 70,
                "reactive": True},
        "cap": {"kind": "capacitor", "element": "Capacitor.cap1", "dwell_steps": 3},
        "reg1": {"kind": "regulator", "element": "RegControl.reg1", "moves_per_step": 2, "tap_min": -4, "tap_max": 9},
        "reg2": {"kind": "regulator", "element": "RegControl.reg2", "moves_per_day": 4, "dwell_steps": 1},
        "sw": {"kind": "switch", "element": "Line.671684", "dwell_steps": 2},
    },
    "agents": {
        "Stores": {"devices": ["small", "any"], "zone": {"buses": ["675"]}, "pcc": "675"},
        "Gear": {"devices": ["reg1", "reg2", "sw"], "zone": {"buses": ["632"]}, "pcc": "632"},
        "Bank": {"devices": ["cap"], "zone": {"buses": ["671"]}, "pcc": "671"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def limited() -> Iterator[CentralGridEnv]:
    env = powergrid.make_central(LIMITED, actions="multidiscrete", levels=6)
    yield env
    env.close()


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), obedience=st.sampled_from([0.0, 0.7, 1.0]))
def test_masked_out_is_projected_and_admitted_is_delivered(
    limited: CentralGridEnv, seed: int, obedience: float
) -> None:
    limited.reset(options={"day": 12})
    rng, simulation = np.random.default_rng(seed), limited.task.simulation
    sizes = limited.action_space.nvec
    ends = np.cumsum(sizes)
    seen = []
    for _ in range(24):
        masks = np.split(limited.action_masks(), ends[:-1])
        assert all(mask.any() for mask in masks)
        action = np.array([
            rng.choice(np.flatnonzero(mask)) if rng.random() < obedience else rng.integers(len(mask)) for mask in masks
        ])  # fmt: skip
        admitted = [bool(mask[chosen]) for mask, chosen in zip(masks, action, strict=True)]
        limited.step(action)
        storage, *gear = simulation.fleets
        got = [np.abs(storage.p_kw - storage.requested_p_kw)[0] < 1e-6]
        got += [(fleet.position == fleet.requested_position)[0] for fleet in gear]
        delivered = dict(zip(simulation.device_names, np.concatenate(got).tolist(), strict=True))
        told = {spec.device: ok for spec, ok in zip(simulation.actions, admitted, strict=True) if spec.name != "q_kvar"}
        # of a battery that has no level for 0 kW the nearest is admitted, which may be no power it has room for
        nearest = {"any"} if masks[1].sum() == 1 else set()
        assert {name: told[name] for name in told if name not in nearest} == {
            name: delivered[name] for name in told if name not in nearest
        }
        seen.append(admitted)
    assert obedience < 1.0 or np.all(seen)
    assert obedience > 0.0 or not np.all(seen)


def tied(folder: Path) -> str:
    """Return the 13-node feeder with two ties that close loops around it."""
    master = folder / "tied.dss"
    line = "Phases=3 Switch=yes R1=0.001 X1=0 R0=0.001 X0=0 C1=0 C0=0 Length=0.001"
    master.write_text(
        f'Redirect "{find_feeder("ieee13")}"\nNew Line.tie1 Bus1=680 Bus2=675 {line}\nOpen Line.tie1 1\n'
        f"New Line.tie2 Bus1=633 Bus2=680 {line}\nOpen Line.tie2 1\n"
    )
    return str(master)


@pytest.mark.parametrize("keep_served", [False, True])
def test_switches_are_masked_where_neither_they_nor_an_exchange_may_move(keep_served: bool, tmp_path: Path) -> None:
    lines = {"main": "671692", "end": "671680", "tie1": "tie1", "tie2": "tie2", "side": "632633"}
    devices = {name: {"kind": "switch", "element": f"Line.{line}"} for name, line in lines.items()}
    devices["side"]["dwell_steps"] = 2  # type: ignore[assignment]
    agent = {"devices": list(devices), "zone": {"downstream_of": "632"}, "pcc": "632"}
    world = {"name": "tied", "feeder": tied(tmp_path), "devices": devices, "agents": {"Feeder": agent}}
    rules = {"radial": "keep", "keep_served": keep_served}
    task = GridTask(load_scenario(world, {"trust": True, "reconfiguration": rules, "divergence.policy": "hold"}))
    task.reset(0, np.random.default_rng(0), {"day": 3})
    fleet, rng, kinds = task.simulation.fleets[0], np.random.default_rng(5), set()

    def move(chosen: tuple[int, ...]) -> Any:
        asked = fleet.previous_position.copy()
        asked[0, list(chosen)] = 1 - asked[0, list(chosen)]
        task.action_buffer()[:] = asked
        task.step()
        return fleet.position[0] == asked[0]

    for _ in range(4):
        before, (mask,) = task.state(), task.action_masks(0).values()
        stands = fleet.previous_position[0].copy()
        places = range(len(lines))
        alone = {(i,): move((i,)) for i in places if task.restore(before) is None}  # type: ignore[func-returns-value]
        pairs = {p: move(p) for p in combinations(places, 2) if task.restore(before) is None}  # type: ignore[func-returns-value]
        task.restore(before)
        for i in places:
            ways = [bool(got[i]) for moved, got in (alone | pairs).items() if i in moved]
            assert mask.reshape(-1, 2)[i].tolist() == [stands[i] == at or any(ways) for at in (0, 1)]
            kinds.add((any(ways), bool(alone[i,][i])))
        free = [moved for moved, got in pairs.items() if got.all()] or [(0,)]
        move(free[int(rng.integers(len(free)))])
    assert (False, False) in kinds
    assert (True, True) in kinds or keep_served
    assert (True, False) in kinds  # by an exchange alone
    task.close()


def test_forms_have_the_masks_of_what_they_choose_from() -> None:
    with powergrid.make_central(LIMITED, actions="mixed") as env:
        env.reset(seed=0)
        assert env.action_masks().shape == (env.action_space["discrete"].nvec.sum(),)
    with powergrid.make_central(LIMITED, actions="box", action_masks="infos") as env:
        assert "action_mask" not in env.reset(seed=0)[1]
        with pytest.raises(ScenarioError, match="choose actions='multidiscrete'"):
            env.action_masks()


@pytest.mark.parametrize("where", ["infos", "observations"])
def test_vectors_have_the_masks_of_their_single_environments(where: str) -> None:
    keys: dict[str, Any] = {"action_masks": where, "episode_length": 3, "plain_discrete": True}
    central = powergrid.make_vector(LIMITED, 2, view="central", actions="multidiscrete", levels=5, **keys)
    agents = powergrid.make_vector(LIMITED, 2, autoreset_mode=AutoresetMode.SAME_STEP, **keys)
    ones = [powergrid.make_central(LIMITED, actions="multidiscrete", levels=5, **keys) for _ in range(2)]
    teams = [powergrid.make(LIMITED, **keys) for _ in range(2)]
    seen, infos = central.reset(seed=4)
    by_agent, _ = agents.reset(seed=4)
    singles, sets = ([env.reset(seed=4 + i) for i, env in enumerate(each)] for each in (ones, teams))
    central.action_space.seed(1)
    for step in range(4):
        told = infos["action_mask"] if where == "infos" else seen["action_mask"]
        np.testing.assert_array_equal(told, central.action_masks())
        np.testing.assert_array_equal(told, [env.action_masks() for env in ones])
        own = [single[-1 if where == "infos" else 0]["action_mask"] for single in singles]
        np.testing.assert_array_equal(told, own)
        for name, masks in agents.action_masks().items():
            np.testing.assert_array_equal(masks, [env.action_masks()[name] for env in teams])
            of_teams = [each[-1 if where == "infos" else 0][name]["action_mask"] for each in sets]
            np.testing.assert_array_equal(masks, of_teams)
            if where == "observations":
                np.testing.assert_array_equal(masks, by_agent[name]["action_mask"])
        if step == 2:
            break
        actions = central.action_space.sample()
        seen, *_, infos = central.step(actions)
        singles = [env.step(action) for env, action in zip(ones, actions, strict=True)]
        parts = [[agent.read_action(env.task.action_buffer()[0]) for agent in env.task.agents] for env in ones]
        names = agents.possible_agents
        joint = [dict(zip(names, part, strict=True)) for part in parts]
        sets = [env.step(action) for env, action in zip(teams, joint, strict=True)]
        batch = {name: _stack([each[name] for each in joint]) for name in names}
        by_agent, *_ = agents.step(batch)
    if where == "observations":
        assert central.observation_space.contains(seen)
        by_agent, _, _, truncated, final = agents.step(batch)
        assert truncated.all()
        space = agents.single_observation_space["Gear"]
        assert space.contains({key: part[1] for key, part in final["final_obs"]["Gear"].items()})
    for env in (central, agents, *ones, *teams):
        env.close()


def _stack(actions: list[Any]) -> Any:
    if isinstance(actions[0], dict):
        return {key: np.stack([each[key] for each in actions]) for key in actions[0]}
    return np.stack(actions)


@pytest.mark.parametrize("where", ["infos", "observations"])
def test_checkers_accept_masks(where: str) -> None:
    world = LIMITED | {"action_masks": where, "plain_discrete": True}
    devices = {name: LIMITED["devices"][name] for name in ("cap", "sw")}
    pair = {"Bank": LIMITED["agents"]["Bank"], "Gear": LIMITED["agents"]["Gear"] | {"devices": ["sw"]}}
    with powergrid.make_central(world, actions="multidiscrete", levels=4) as env:
        check_env(env, skip_render_check=True)
    # PettingZoo's draws with the mask it is shown, which only a Discrete takes as it is
    parallel_api_test(powergrid.make(world | {"devices": devices, "agents": pair}), num_cycles=30)
    rllib = NetworkedGridEnv({"scenario": world})
    seen, infos = rllib.reset(seed=0)
    assert all(rllib.observation_spaces[agent].contains(seen[agent]) for agent in seen)
    assert ("action_mask" in infos["Gear"]) == (where == "infos")
    for agent, mask in rllib.action_masks().items():
        space = rllib.action_spaces[agent]
        assert space.contains(space.sample(mask=as_sample_mask(space, mask)))
    rllib.close()


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        ([True] * 4, r"has shape \(4,\), expected \(5,\), of all positions of MultiDiscrete\(\[2 3\]\)"),
        ([[1] * 5], r"has shape \(1, 5\), expected \(5,\)"),
        ([1, 1, 1, 0, 2], "holds 2; allowed are 0 and 1, true and false"),
        ([1.0, 1.0, 1.0, 0.0, np.nan], "holds nan; allowed"),
        ("positions", r"has shape \(\), expected"),
    ],
)
def test_mask_that_does_not_fit_is_refused(mask: Any, told: str) -> None:
    with pytest.raises(ActionError, match=told):
        as_sample_mask(gym.spaces.MultiDiscrete([2, 3]), mask)


def test_one_position_is_a_discrete_where_that_is_asked_for(make_env: Callable[..., NetworkedGridEnv]) -> None:
    stock, plain = make_env(LIMITED), make_env(LIMITED, plain_discrete=True)
    assert stock.action_spaces["Bank"] == gym.spaces.MultiDiscrete([2])
    assert plain.action_spaces["Bank"] == gym.spaces.Discrete(2)
    assert {n: plain.action_spaces[n] == stock.action_spaces[n] for n in ("Stores", "Gear")} == {
        "Stores": True,
        "Gear": True,
    }
    for env, bank in ((stock, [0]), (plain, 0), (plain, np.int64(0)), (plain, np.array(0))):
        env.reset(seed=0)
        assert env.action_spaces["Bank"].contains(env.neutral_actions()["Bank"])
        env.step(env.neutral_actions() | {"Bank": bank})
        bank_at = env.task.simulation.fleets[1].position
        assert bank_at.tolist() == [[0]]
    with pytest.raises(ActionError, match=r"agent 'Bank': action is 2; allowed are the whole numbers 0..1"):
        plain.step(plain.neutral_actions() | {"Bank": 2})
    with pytest.raises(ActionError, match=r"action has shape \(1,\), expected \(\)"):
        plain.step(plain.neutral_actions() | {"Bank": [0]})
    bank = {"devices": LIMITED["devices"], "agents": {"Bank": LIMITED["agents"]["Bank"]}}
    alone = powergrid.make_central(LIMITED | bank, plain_discrete=True)
    assert alone.action_space == gym.spaces.Discrete(2)
    check_env(alone, skip_render_check=True)
    several = powergrid.make_vector(LIMITED | bank, 3, view="central", plain_discrete=True)
    several.reset(seed=0)
    several.step(several.action_space.sample())
    assert several.neutral_actions().shape == (3,)
    with pytest.raises(ActionError, match="environment 1: agent 'central': action is 2"):
        several.step(np.array([0, 2, 1]))
    for env in (alone, several):
        env.close()


def test_masks_of_several_feeders_are_those_of_each_alone() -> None:
    keys = {
        "feeders": {"ieee13": 2, "ieee34": 1}, "placement": {"rule": "load"}, "episode_length": 3, "split": "all",
        "action_masks": "observations", **{f"devices.ess_{i}.levels": 5 for i in (1, 2)},
        **{f"devices.ess_{i}.soc_initial": 0.12 for i in (1, 2)},
    }  # fmt: skip
    several = powergrid.make_vector("ieee13_mg", 3, **keys)
    seen, _ = several.reset(seed=3)
    played = set()
    for i in range(3):
        alone = powergrid.make("ieee13_mg", **keys)
        own, _ = alone.reset(seed=3 + i)
        played.add(alone.task.scenario.feeder)
        for agent in own:
            mask = seen[agent]["action_mask"][i]
            np.testing.assert_array_equal(own[agent]["action_mask"], mask)
            assert not mask.all()
            assert alone.observation_space(agent).contains(own[agent])
        alone.close()
    assert len(played) == 2
    several.close()


def test_training_refuses_masks_among_observations_by_a_sentence() -> None:
    facts = probe_env(NetworkedGridEnv, {"scenario": LIMITED, "action_masks": "observations"})
    problems = space_problems(facts, {agent: agent for agent in facts.agents})
    assert len(problems) == 3
    assert all("'action_mask'" in problem and "is not a 1-D Box" in problem for problem in problems)
