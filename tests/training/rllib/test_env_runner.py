"""GridEnvRunner against RLlib's own runner: the same seeds and weights, the same values within 1e-6.

Where noise is drawn there is one agent: the stock runner draws for several in the order of a Python set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ConvergenceError
from powergrid.training.rllib.config import ppo_config
from powergrid.training.rllib.env_runner import GridEnvRunner
from powergrid.training.rllib.metrics import GridMetricsCallback
from powergrid.training.runs.session import RaySession, build_algorithm
from tests.envs.worlds import every_kind
from tests.training.conftest import TINY

pytestmark = pytest.mark.usefixtures("ray_session")

SHORT = {"env_name": "ieee13_mg", "episode_length": 8}
# Times, and what RLlib's connectors say of themselves: they do not run here.
NOT_COMPARED = ("timer", "sample", "time_between_sampling", "duration", "sum_episodes_length")
BUFFERS = ("observations", "actions", "rewards")


class ManyRunners:
    """Make runners of either class from one configuration, and stop them."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def __call__(self, cls: type, env_config: dict[str, Any], change: Any = None, **settings: Any) -> Any:
        config = ppo_config(env_config, **{**TINY, "seed": 3, **settings})
        if change:
            change(config)
        self.made.append(cls(config=config, worker_index=0))
        torch.manual_seed(0)
        return self.made[-1]

    def pair(self, *args: Any, **settings: Any) -> Iterator[Any]:
        return (self(cls, *args, **settings) for cls in (MultiAgentEnvRunner, GridEnvRunner))


@pytest.fixture
def runners() -> Iterator[ManyRunners]:
    made = ManyRunners()
    yield made
    for runner in made.made:
        runner.stop()


def leaves(data: Any) -> list[np.ndarray]:
    return [leaf for part in data.values() for leaf in leaves(part)] if isinstance(data, dict) else [np.asarray(data)]


def assert_equal_episodes(ours: list[Any], theirs: list[Any], tolerance: float = 1e-6) -> None:
    """Hold episodes to each other in all that a learner may read."""
    assert len(ours) == len(theirs)
    for own, stock in zip(ours, theirs, strict=True):
        own.validate()
        for name in ("env_t", "env_t_started", "is_terminated", "is_truncated"):
            assert getattr(own, name) == getattr(stock, name), name
        assert list(own.agent_episodes) == list(stock.agent_episodes)
        for agent, piece in own.agent_episodes.items():
            other = stock.agent_episodes[agent]
            piece.validate()
            for name in ("t", "t_started", "module_id", "is_terminated", "is_truncated", "is_numpy"):
                assert getattr(piece, name) == getattr(other, name), name
            steps, expected = own.env_t_to_agent_t[agent], stock.env_t_to_agent_t[agent]
            assert (steps.data, steps.lookback) == (expected.data, expected.lookback)
            assert len(piece.infos.data) == len(other.infos.data)
            assert piece.infos.lookback == other.infos.lookback
            buffers = [(getattr(piece, name), getattr(other, name)) for name in BUFFERS]
            assert set(piece.extra_model_outputs) == set(other.extra_model_outputs)
            buffers += [(piece.extra_model_outputs[k], other.extra_model_outputs[k]) for k in other.extra_model_outputs]
            for buffer, against in buffers:
                assert (buffer.lookback, buffer.finalized) == (against.lookback, against.finalized)
                for mine, its in zip(leaves(buffer.data), leaves(against.data), strict=True):
                    assert mine.dtype == its.dtype
                    np.testing.assert_allclose(mine, its, rtol=0, atol=tolerance)


def flatten(metrics: Any, path: str = "") -> dict[str, float]:
    if isinstance(metrics, dict):
        return {k: v for key, part in metrics.items() for k, v in flatten(part, f"{path}/{key}").items()}
    if any(word in path for word in NOT_COMPARED):
        return {}
    return {path: float(metrics.peek() if hasattr(metrics, "peek") else metrics)}


SINGLE = {"agents": "single"}
FEEDERS = {"feeders": ["ieee13", "ieee34"], "placement": {"rule": "load"}}
UNSCALED = {"clip_actions": True, "normalize_actions": False}


@pytest.mark.parametrize(
    ("explore", "change", "settings"),
    [
        (False, {}, {}),
        (False, {}, {"policies": "independent"}),
        (True, SINGLE, {}),
        (True, SINGLE, UNSCALED),
        (False, FEEDERS, {}),
        (False, {}, {"network": "gru"}),
        (True, SINGLE, {"network": "gru"}),
        (False, {}, {"network": "gru", "policies": "independent", "free_log_std": False}),
    ],
    ids=["shared", "independent", "single", "unscaled", "feeders", "memory", "memory_drawn", "memories"],
)
def test_samples_are_those_of_the_stock_runner(runners, change: Any, settings: Any, explore: bool) -> None:
    """Pieces shorter and longer than episodes, pieces that end with one, and whole episodes."""
    stock, own = [
        ([runner.sample(num_timesteps=4 * n, explore=explore) for n in (5, 3, 10, 8)], runner.get_metrics(),
         runner.sample(num_episodes=3, explore=explore), runner.get_metrics())
        for runner in runners.pair({**SHORT, **change}, **settings)
    ]  # fmt: skip
    for mine, its in zip(own[0], stock[0], strict=True):
        assert_equal_episodes(mine, its)
    assert_equal_episodes(own[2], stock[2])
    assert [len(episode) for episode in own[2]] == [8, 8, 8]
    for i in (1, 3):
        mine, its = flatten(own[i]), flatten(stock[i])
        assert set(mine) == set(its)
        assert any("/energy_cost_usd" in name for name in mine)
        assert any("agent_episode_returns_mean" in name for name in mine)
        assert mine == pytest.approx(its, rel=1e-6, abs=1e-9, nan_ok=True)


def test_actions_of_both_kinds_are_those_of_the_stock_runner(runners, tmp_path) -> None:
    """A Dict of continuous and discrete actions, every kind of device, one policy for each agent."""
    config = {"scenario": every_kind("ieee13", tmp_path), "episode_length": 6}
    stock, own = [
        [runner.sample(num_timesteps=4 * n, explore=False) for n in (4, 7)]
        for runner in runners.pair(config, policies="independent")
    ]
    assert any(isinstance(piece.actions.data, dict) for piece in own[0][0].agent_episodes.values())
    for mine, its in zip(own, stock, strict=True):
        assert_equal_episodes(mine, its)


def test_what_is_drawn_has_the_probability_that_is_told(runners) -> None:
    runner = runners(GridEnvRunner, SHORT)
    drawn = []
    for piece in (p for e in runner.sample(num_timesteps=4 * 8, explore=True) for p in e.agent_episodes.values()):
        inputs = torch.from_numpy(piece.extra_model_outputs["action_dist_inputs"].data)
        actions = torch.from_numpy(piece.actions.data)
        distribution = TorchDiagGaussian.from_logits(inputs)
        told = piece.extra_model_outputs["action_logp"].data
        np.testing.assert_allclose(told, distribution.logp(actions).numpy(), rtol=0, atol=1e-5)
        mean, log_std = inputs.chunk(2, dim=-1)
        drawn.append((actions - mean) / log_std.exp())
    noise = torch.cat(drawn)
    assert abs(noise.mean()) < 0.2
    assert 0.8 < noise.std() < 1.2


def test_divergence_terminates_one_environment_and_the_others_go_on(runners) -> None:
    runner = runners(GridEnvRunner, SHORT)
    runner.sample(num_timesteps=4, explore=True)
    runner.env.vector.task.simulation.day_load_kw[2, 3] = np.nan
    episodes = runner.sample(num_timesteps=4 * 12, explore=True)
    (broken,) = [episode for episode in episodes if episode.is_terminated]
    assert broken.env_t == 4
    assert all(piece.is_terminated and not piece.is_truncated for piece in broken.agent_episodes.values())
    whole = [episode for episode in episodes if episode.is_truncated]
    assert len(whole) == 4  # three in lockstep, and the new one of the broken
    assert all(not piece.is_terminated for episode in whole for piece in episode.agent_episodes.values())
    assert sum(len(episode) for episode in episodes) == 4 * 12


class Diary(RLlibCallback):
    """Write down what was called with what."""

    made: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.made.append(self)

    def on_episode_created(self, *, episode: Any, **kwargs: Any) -> None:
        episode.custom_data["born"] = len(self.seen)
        self.seen.append("created")

    def on_episode_start(self, *, episode: Any, env_index: int, **kwargs: Any) -> None:
        observed = episode.get_observations(-1)
        self.seen.append(("start", env_index, {agent: float(seen.sum()) for agent, seen in observed.items()}))

    def on_episode_end(self, *, episode: Any, env_index: int, prev_episode_chunks: Any, **kwargs: Any) -> None:
        length = len(episode) + sum(map(len, prev_episode_chunks))
        told = {agent: info["energy_cost_usd"] for agent, info in episode.get_infos(-1).items()}
        self.seen.append(("end", env_index, length, told, episode.get_return(), "born" in episode.custom_data))

    def on_sample_end(self, *, samples: Any, **kwargs: Any) -> None:
        costs = [info["energy_cost_usd"] for e in samples for p in e.agent_episodes.values() for info in p.get_infos()]
        self.seen.append(("sampled", len(samples), sum(costs)))


def flat(told: Any) -> list[Any]:
    """Lay out nested entries, so that their numbers can be held to others approximately."""
    if isinstance(told, dict):
        return flat(list(told.items()))
    if isinstance(told, (list, tuple)):
        return [leaf for part in told for leaf in flat(part)]
    return [float(told) if isinstance(told, (int, float, np.number)) else abs(hash(told)) % 10**6]


class StepDiary(Diary):
    def on_episode_step(self, *, episode: Any, **kwargs: Any) -> None:
        self.seen.append(("step", episode.env_t))


@pytest.mark.parametrize("diary", [Diary, StepDiary])
def test_callbacks_are_told_what_the_stock_runner_tells_them(runners, caplog, diary: type) -> None:
    caplog.set_level(logging.WARNING, "powergrid.training")
    told = []
    for runner in runners.pair(SHORT, lambda config: config.callbacks([GridMetricsCallback, diary])):
        for n in (5, 6):
            runner.sample(num_timesteps=4 * n, explore=False)
        told.append((Diary.made[-1].seen, flatten(runner.get_metrics())))
    (stock, stock_metrics), (own, own_metrics) = told
    assert flat(own) == pytest.approx(flat(stock), rel=1e-6, abs=1e-6)
    assert own_metrics == pytest.approx(stock_metrics, rel=1e-6, nan_ok=True)
    assert sum(entry[0] == "end" for entry in own) == 4
    assert ("on_episode_step" in caplog.text) == (diary is StepDiary)


def test_connectors_of_the_user_run_as_with_the_stock_runner(runners, caplog) -> None:
    caplog.set_level(logging.WARNING, "powergrid.training")

    def change(config: Any) -> None:
        config.env_runners(env_to_module_connector=lambda env, spaces, device: MeanStdFilter(multi_agent=True))

    stock, own = [runner.sample(num_timesteps=4 * 12, explore=False) for runner in runners.pair(SHORT, change)]
    assert_equal_episodes(own, stock)
    assert "connectors are not RLlib's defaults (MeanStdFilter)" in caplog.text


class Negated(NetworkedGridEnv):
    def step(self, actions: Any) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, {agent: -reward for agent, reward in rewards.items()}, *rest


def test_environments_of_the_user_run_as_with_the_stock_runner(runners, caplog) -> None:
    caplog.set_level(logging.WARNING, "powergrid.training")
    change = lambda config: config.environment(Negated)  # noqa: E731
    stock, own = [runner.sample(num_timesteps=4 * 12, explore=False) for runner in runners.pair(SHORT, change)]
    assert_equal_episodes(own, stock)
    assert "the environment is 'Negated', not NetworkedGridEnv itself" in caplog.text
    assert ppo_config(SHORT, env=Negated, **TINY).env_runner_cls is None
    assert ppo_config(SHORT, **TINY).env_runner_cls is GridEnvRunner
    assert ppo_config(SHORT, env_runner="stock", **TINY).env_runner_cls is None


def test_random_actions_are_taken_by_the_stock_code(runners) -> None:
    runner = runners(GridEnvRunner, SHORT)
    random = runner.sample(num_timesteps=4 * 12, random_actions=True, explore=True)
    assert [len(e) for e in random if e.is_done] == [8] * 4
    chosen = runner.sample(num_timesteps=4 * 12, explore=True)
    assert [len(e) for e in chosen if e.is_done] == [8] * 4
    assert all("action_logp" in p.extra_model_outputs for e in chosen for p in e.agent_episodes.values())


def test_environments_that_fail_are_made_anew_and_counted(runners) -> None:
    runner = runners(GridEnvRunner, {**SHORT, "divergence": {"policy": "raise"}})
    runner.sample(num_timesteps=4 * 3, explore=True)
    first = runner.env.vector
    first.task.simulation.day_load_kw[1, 5] = np.nan
    episodes = runner.sample(num_timesteps=4 * 6, explore=True)
    assert runner.env.vector is not first
    assert all(episode.env_t_started == 0 for episode in episodes)
    assert sum(map(len, episodes)) == 4 * 6
    assert flatten(runner.get_metrics())["/num_env_step_failures"] == 1


def test_failure_without_restart_reaches_the_caller(runners) -> None:
    change = lambda config: config.fault_tolerance(restart_failed_sub_environments=False)  # noqa: E731
    runner = runners(GridEnvRunner, {**SHORT, "divergence": {"policy": "raise"}}, change)
    runner.sample(num_timesteps=4, explore=True)
    runner.env.vector.task.simulation.day_load_kw[1, 1:] = np.nan
    with pytest.raises(RuntimeError) as raised:
        runner.sample(num_timesteps=4 * 3, explore=True)
    assert isinstance(raised.value.__cause__, ConvergenceError)


def train_once(env_runner: str, **settings: Any) -> tuple[Any, dict[str, Any]]:
    config = ppo_config(
        {"env_name": "ieee13_mg", **SINGLE}, **{**TINY, "seed": 1, "env_runner": env_runner, **settings}
    )
    config.evaluation(evaluation_interval=1, evaluation_duration=2, evaluation_config={"explore": False})
    algorithm = build_algorithm(config, RaySession(None))
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (RLlib shuffles minibatches by it)
    for _ in range(2):
        result = algorithm.train()
    return algorithm, result


def test_training_evaluation_and_restoring_are_those_of_the_stock_runner(tmp_path) -> None:
    results, algorithms = [], []
    for env_runner in ("stock", "grid"):
        algorithm, result = train_once(env_runner)
        algorithms.append(algorithm)
        results.append(result)
    stock, own = results
    for name in ("episode_return_mean", "episode_len_mean", "num_env_steps_sampled_lifetime"):
        assert own["env_runners"][name] == pytest.approx(stock["env_runners"][name], rel=1e-4), name
    assert own["evaluation"]["env_runners"]["episode_return_mean"] == pytest.approx(
        stock["evaluation"]["env_runners"]["episode_return_mean"], rel=1e-4
    )
    assert set(flatten(own["env_runners"])) == set(flatten(stock["env_runners"]))
    for name in ("vf_loss", "policy_loss", "vf_explained_var"):
        assert own["learners"]["grid_policy"][name] == pytest.approx(
            stock["learners"]["grid_policy"][name], rel=1e-3, abs=1e-5
        ), name
    path = algorithms[1].save_to_path(str(tmp_path / "checkpoint"))
    restored = type(algorithms[1]).from_checkpoint(path, trust=True)
    assert type(restored.env_runner) is GridEnvRunner
    for name, weights in restored.get_weights()["grid_policy"].items():
        np.testing.assert_array_equal(weights, algorithms[1].get_weights()["grid_policy"][name])
    assert restored.train()["training_iteration"] == 3
    for algorithm in (*algorithms, restored):
        algorithm.stop()


@pytest.mark.slow
def test_training_in_a_worker_survives_its_death() -> None:
    algorithm, result = train_once("grid", num_env_runners=1, sample_timeout_s=60.0)
    try:
        assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 2 * 384
        (actor,) = algorithm.env_runner_group._worker_manager.actors().values()
        import ray

        ray.kill(actor, no_restart=False)
        sampled = []
        for _ in range(40):
            sampled.append(algorithm.train()["env_runners"].get("num_env_steps_sampled", float("nan")))
            if sampled[-1] == 384:
                break
        assert sampled[-1] == 384
    finally:
        algorithm.stop()
