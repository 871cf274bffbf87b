from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from powergrid.envs import GridVectorEnv, NetworkedGridEnv
from powergrid.errors import ActionError, ScenarioError
from powergrid.scenario import load_scenario
from tests.envs.worlds import every_kind


def draw(env: GridVectorEnv, rng: np.random.Generator) -> dict[str, Any]:
    """Draw actions for every environment, as arrays by agent."""

    def stack(rows: list[Any]) -> Any:
        if isinstance(rows[0], dict):
            return {key: stack([row[key] for row in rows]) for key in rows[0]}
        return np.stack(rows)

    drawn = {}
    for agent, space in env.single_action_space.items():
        space.seed(int(rng.integers(2**31)))
        drawn[agent] = stack([space.sample() for _ in range(env.num_envs)])
    return drawn


def pick(action: Any, env: int) -> Any:
    return {key: value[env] for key, value in action.items()} if isinstance(action, dict) else action[env]


@pytest.mark.parametrize("scenario", ["ieee13_mg", "every_kind"])
def test_vector_env_plays_what_single_environments_play(make_vector, tmp_path: Path, scenario: str) -> None:
    data: Any = {"scenario": every_kind("ieee13", tmp_path)} if scenario == "every_kind" else {"env_name": scenario}
    short = {**data, "episode_length": 5}
    single = [NetworkedGridEnv(short) for _ in range(3)]
    vector = make_vector(single[0].scenario, 3)
    rng = np.random.default_rng(3)
    seen, _ = vector.reset(seed=7)
    for i, env in enumerate(single):
        alone, _ = env.reset(seed=7 + i)
        for agent, observed in alone.items():
            np.testing.assert_array_equal(seen[agent][i], observed)
    columns = {name: column for column, name in enumerate(vector.info_names)}
    for step in range(1, 12):
        actions = draw(vector, rng)
        seen, rewards, terminated, truncated, final = vector.step(actions)
        infos = final.get("final_info", vector.infos())
        assert truncated.tolist() == [step % 5 == 0] * 3
        assert not terminated.any()
        for i, env in enumerate(single):
            alone, paid, _, over, told = env.step({agent: pick(action, i) for agent, action in actions.items()})
            assert over["__all__"] == truncated[i]
            observed = final["final_obs"] if over["__all__"] else seen
            for a, agent in enumerate(vector.possible_agents):
                np.testing.assert_allclose(observed[agent][i], alone[agent], atol=2e-6)
                assert rewards[i, a] == pytest.approx(paid[agent], abs=1e-9)
                for name, column in columns.items():
                    assert infos[i, a, column] == pytest.approx(told[agent][name], abs=1e-7), name
            if over["__all__"]:
                alone, _ = env.reset()
                for agent in alone:
                    np.testing.assert_allclose(seen[agent][i], alone[agent], atol=2e-6)
    for env in single:
        env.close()


def test_environments_with_one_seed_play_different_days(make_vector) -> None:
    env = make_vector("ieee13_mg", 8)
    env.reset(seed=0)
    assert len(set(env.task.simulation.day.tolist())) > 4
    again = env.task.simulation.day.copy()
    env.reset()
    assert (env.task.simulation.day != again).any()
    env.reset(seed=0)
    np.testing.assert_array_equal(env.task.simulation.day, again)
    first = make_vector("ieee13_mg", 8, worker_index=1)
    first.reset(seed=0)
    second = make_vector("ieee13_mg", 8, worker_index=2)
    second.reset(seed=0)
    assert (first.task.simulation.day != second.task.simulation.day).any()


def test_reset_mask_starts_only_what_it_names(make_vector) -> None:
    env = make_vector(load_scenario("ieee13_mg", {"episode_length": 4}), 3, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    neutral = env.neutral_actions()
    for _ in range(4):
        seen, _, _, truncated, final = env.step(neutral)
    assert truncated.all()
    assert not final
    days = env.task.simulation.day.copy()
    after, _ = env.reset(options={"reset_mask": np.array([False, True, False]), "day": 200})
    assert env.task.simulation.step_index.tolist() == [4, 0, 4]
    assert env.task.simulation.day.tolist() == [days[0], 200, days[2]]
    for agent, observed in after.items():
        np.testing.assert_array_equal(observed[[0, 2]], seen[agent][[0, 2]])
        assert (observed[1] != seen[agent][1]).any()


def test_environment_that_diverges_starts_anew_alone(make_vector) -> None:
    env = make_vector(load_scenario("ieee13_mg", {"episode_length": 8}), 3)
    env.reset(seed=0)
    env.task.simulation.day_load_kw[1, 2] = np.nan  # what no feeder can carry
    for step in range(3):
        before = env.task.simulation.day.copy()
        seen, _, terminated, truncated, final = env.step(env.neutral_actions())
        assert terminated.tolist() == [False, step == 2, False]
        assert not truncated.any()
    assert final["_final_obs"].tolist() == [False, True, False]
    converged = list(env.info_names).index("converged")
    assert final["final_info"][:, 0, converged].tolist() == [1.0, 0.0, 1.0]
    assert env.task.simulation.step_index.tolist() == [3, 0, 3]
    assert (env.task.simulation.day == before)[[0, 2]].all()
    assert all(np.isfinite(observed).all() for observed in seen.values())


def test_wrong_actions_name_agent_environment_and_remedy(make_vector) -> None:
    env = make_vector("ieee13_mg", 3)
    env.reset(seed=0)
    good = env.neutral_actions()
    agent, other = env.possible_agents[:2]
    bad = {**good, agent: good[agent].copy()}
    bad[agent][2, 0] = np.nan
    with pytest.raises(ActionError, match=rf"environment 2: agent '{agent}': action\[0\] is nan; allowed is -1..1"):
        env.step(bad)
    with pytest.raises(ActionError, match=f"agent '{agent}' has no action"):
        env.step({name: action for name, action in good.items() if name != agent})
    with pytest.raises(ActionError) as raised:
        env.step({**good, agent: good[agent][:2], other: good[other][:, :1], "MG9": 0})
    assert any("do not have 3 environments first" in problem for problem in raised.value.problems)
    assert any("environment 0" in problem and other in problem for problem in raised.value.problems)
    assert any("unknown agent 'MG9'" in problem for problem in raised.value.problems)
    env.step(good)


def test_wrong_positions_are_refused_where_agents_set_both(make_vector, tmp_path: Path) -> None:
    env = make_vector(every_kind("ieee13", tmp_path), 2)
    env.reset(seed=0)
    good = draw(env, np.random.default_rng(0))
    agent = next(name for name, action in good.items() if isinstance(action, dict))
    bad = {**good, agent: {**good[agent], "discrete": good[agent]["discrete"] + 1000}}
    with pytest.raises(ActionError, match=r"environment 0: .*discrete: action\[0\]"):
        env.step(bad)
    env.step(good)


def test_vector_env_with_wrong_arguments_tells_all_of_them(make_vector) -> None:
    with pytest.raises(ScenarioError) as raised:
        make_vector("ieee13_mg", 0, workers=2)
    assert len(raised.value.problems) == 2
    env = make_vector("ieee13_mg", 2)
    with pytest.raises(ScenarioError, match=r"call reset\(\) before step\(\)"):
        env.step({})
    with pytest.raises(ScenarioError, match="3 seeds for 2 environments"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ScenarioError, match="never started"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(seed=[1, None])
    with pytest.raises(ScenarioError, match="reset_mask has shape"):
        env.reset(options={"reset_mask": [True]})
