"""Policies with a memory: what they carry from step to step, what they learn of it, and how they are played."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.evaluation.replay import record_day
from powergrid.training import export_policy, export_run, load_policy, ppo_config, resume, train
from powergrid.training.policies.export import network_of_module
from powergrid.training.policies.inference import Policy, TorchNetwork
from powergrid.training.runs.session import RaySession, build_algorithm
from powergrid.training.runs.settings import make_settings
from tests.training.policies.test_export import run_file
from tests.training.toy import ToyGridEnv

SHORT = {"env_name": "ieee13_mg", "episode_length": 8, "start_hour": 14.0}
SMALL: dict[str, Any] = {
    "num_env_runners": 0, "num_envs_per_env_runner": 4, "train_batch_size": 80, "minibatch_size": 16, "num_epochs": 1,
    "hidden": [16, 12], "validation_episodes": 2, "network": "gru", "gru_width": 5, "max_seq_len": 3,
}  # fmt: skip


def moved(module: Any) -> Any:
    """Return a module with its last layer no longer next to nothing, so that what is remembered shows."""
    with torch.no_grad():
        for param in module.pi.parameters():
            param.add_(torch.randn(param.shape, generator=torch.Generator().manual_seed(1)))
    return module


@pytest.fixture
def built(ray_session: None):
    algorithm = build_algorithm(ppo_config(SHORT, preset="residual", **SMALL, envs_per_day=2), RaySession(None))
    moved(algorithm.learner_group._learner.module["grid_policy"])
    algorithm.env_runner.set_state({"rl_module": algorithm.learner_group.get_state()["learner"]["rl_module"]})
    yield algorithm
    algorithm.stop()


@pytest.mark.parametrize("settings", [{}, {"hidden": [16]}, {"free_log_std": False}], ids=["two", "one", "spreads"])
def test_steps_by_numpy_are_the_sequence_by_torch(settings: dict[str, Any]) -> None:
    config = ppo_config({}, env=ToyGridEnv, **{**SMALL, **settings})
    module = moved(config.get_multi_rl_module_spec(env=ToyGridEnv()).build()["grid_policy"])
    seen = torch.randn(3, 40, 6, generator=torch.Generator().manual_seed(0))
    start = {name: own.repeat(3, 1) for name, own in module.get_initial_state().items()}
    whole = module.forward_inference({"obs": seen, "state_in": start})
    network = network_of_module(module)
    held = network.start(3)
    steps = [network.forward(seen[:, t].numpy(), held) for t in range(40)]
    given = whole["action_dist_inputs"].numpy()[..., : steps[0].shape[1]]  # without spreads that are beside the network
    np.testing.assert_allclose(np.stack(steps, 1), given, atol=1e-5)
    np.testing.assert_allclose(held, whole["state_out"]["held"].numpy(), atol=1e-5)
    assert np.abs(steps[3] - network.forward(seen[:, 3].numpy())).max() > 1e-3  # what was seen before shows
    # in two parts it is the same, and by torch on stored arrays
    first = module.forward_inference({"obs": seen[:, :25], "state_in": start})
    second = module.forward_inference({"obs": seen[:, 25:], "state_in": first["state_out"]})
    torch.testing.assert_close(second["action_dist_inputs"], whole["action_dist_inputs"][:, 25:], atol=1e-5, rtol=1e-5)
    other = TorchNetwork(*(getattr(network, field) for field in network.__dataclass_fields__))
    held[:] = 0.0
    again = [other.forward(seen[:, t].numpy(), held) for t in range(40)]
    np.testing.assert_allclose(np.stack(again, 1), np.stack(steps, 1), atol=1e-5)


def learner_batch(algorithm: Any, episodes: list[Any]) -> tuple[Any, Any]:
    """Return the learner of an algorithm and the rows of its one policy that it makes of episodes."""
    learner = algorithm.learner_group._learner
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=copy.deepcopy(episodes), shared_data={}, metrics=learner.metrics
    )
    return learner, batch


def test_what_is_learnt_from_is_what_acted_with_what_was_remembered_then(built: Any) -> None:
    """Pieces of episodes, cut by samples that end within one and by episodes that end within a sample."""
    for _ in range(3):
        sampled = built.env_runner.sample(num_timesteps=4 * 5, explore=True)
        learner, batch = learner_batch(built, sampled)
        rows = batch["grid_policy"]
        out = learner.module.forward_train(batch)["grid_policy"]
        mask = rows["loss_mask"]
        assert int(mask.sum()) == 2 * sum(len(episode) for episode in sampled) == 2 * 4 * 5
        torch.testing.assert_close(
            out["action_dist_inputs"][mask], rows["action_dist_inputs"][mask], atol=1e-5, rtol=1e-5
        )
        starts = [e.agent_episodes[a] for e in sampled for a in ("MG1", "MG2") if e.agent_episodes[a].t_started == 0]
        for piece in starts:  # each episode starts with nothing
            seen = torch.from_numpy(piece.get_observations(0))[None, None]
            batch = {"obs": seen, "state_in": {"held": torch.zeros(1, 5)}}
            first = learner.module["grid_policy"].forward_inference(batch)
            given = piece.get_extra_model_outputs("action_dist_inputs", 0)
            np.testing.assert_allclose(given, first["action_dist_inputs"][0, 0].numpy(), atol=1e-5)


def test_padding_changes_no_gradient(built: Any) -> None:
    sampled = built.env_runner.sample(num_timesteps=4 * 7, explore=True)
    found = []
    for filling in (0.0, 3.0):
        learner, batch = learner_batch(built, sampled)
        rows = batch["grid_policy"]
        assert not rows["loss_mask"].all()
        for name in ("obs", "actions", "advantages", "value_targets", "action_logp", "action_dist_inputs"):
            rows[name][~rows["loss_mask"]] += filling
        losses = learner.compute_losses(fwd_out=learner.module.forward_train(batch), batch=batch)
        found.append([own.clone() for own in learner.compute_gradients(losses).values()])
    for zeros, others in zip(*found, strict=True):
        torch.testing.assert_close(zeros, others, atol=1e-7, rtol=1e-5)
    still = [name for (name, _), own in zip(learner.module["grid_policy"].named_parameters(), found[0], strict=True)
             if not own.abs().sum() > 0.0]  # fmt: skip
    assert not still


def test_training_and_everything_that_plays_what_came_of_it(ray_session: None, tmp_path: Path) -> None:
    settings = {**SMALL, "iterations": 2, "validate_every": 1, "lr": 0.03}
    run = train(SHORT, settings, out_dir=tmp_path, name="run", policies="shared").folder
    assert resume(run, iterations=3).iterations == 3
    policy = load_policy(run)
    assert policy.remembers
    told = json.loads((next(run.glob("checkpoints/*/policy")) / "policy.json").read_text())
    assert (told["format"], told["memories"]) == (7, {"grid_policy": {"place": 2, "width": 5}})
    seen = np.random.default_rng(0).uniform(-1, 1, (6, policy.spaces["MG1"][0])).astype(np.float32)
    first = [policy.act({"MG1": row, "MG2": row})["MG1"] for row in seen]
    fresh = policy.act({"MG2": seen[0]})["MG2"]
    policy.reset()
    np.testing.assert_array_equal(policy.act({"MG2": seen[0]})["MG2"], policy.act_batch("MG1", seen[:1])[0])
    assert not np.array_equal(fresh, policy.act_batch("MG2", seen[:1])[0])  # MG2's own, all of its steps
    other = copy.deepcopy(policy)  # goes on by itself
    np.testing.assert_array_equal([other.act({"MG1": row})["MG1"] for row in seen], first)
    assert "MG1" not in policy._held

    alone, together = (
        evaluate(SHORT, [("run", policy)], days=3, n_envs=count).frame["reward"].to_numpy() for count in (1, 3)
    )
    np.testing.assert_allclose(together, alone, rtol=1e-9)
    record_day(SHORT, [("run", policy)], 3)

    for backend in ("numpy", "torch"):
        loaded, held = load_policy(run, backend=backend), policy.start("MG1", 1)
        np.testing.assert_allclose(
            [loaded.act_batch("MG1", row[None], held)[0] for row in seen], first, atol=1e-6
        )  # fmt: skip


def test_exported_files_take_and_give_what_is_remembered(built: Any, tmp_path: Path) -> None:
    export_policy(built, tmp_path / "policy")
    policy = load_policy(tmp_path / "policy")
    seen = np.random.default_rng(0).uniform(-1, 1, (5, 4, policy.spaces["MG1"][0])).astype(np.float32)
    held = policy.start("MG1", 4)
    expected = [policy.act_batch("MG1", own, held) for own in seen]
    for format in ("onnx", "torchscript"):
        (file, _, interface) = export_run(tmp_path / "policy", tmp_path / format, format=format)
        told = json.loads(interface.read_text())["agents"]["MG1"]
        assert told["memory"] == {
            "input": {"name": "memory", "shape": ["n", 5], "dtype": "float32"},
            "output": {"name": "next_memory", "shape": ["n", 5], "dtype": "float32"},
            "first": 0.0,
        }
        memory = np.zeros((4, 5), np.float32)
        for own, right in zip(seen, expected, strict=True):
            given = run_file(file, own, ["action", "next_memory"], memory=memory)
            memory = given["next_memory"]
            np.testing.assert_allclose(given["action"], right, atol=1e-5)
        np.testing.assert_allclose(memory, held, atol=1e-5)
        assert np.abs(held).max() > 0.01


def test_what_cannot_be_remembered_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"minibatch_size 16 holds no sequence of max_seq_len 32 steps; .* most 16"):
        make_settings("ppo", {"network": "gru", "minibatch_size": 16})
    with pytest.raises(ScenarioError, match="sac has no setting 'network'; it is one of ppo, mappo"):
        make_settings("sac", {"network": "gru"})
    config = ppo_config({}, env=ToyGridEnv, **SMALL)
    module = config.get_multi_rl_module_spec(env=ToyGridEnv()).build()["grid_policy"]
    Policy({"p": network_of_module(module)}, {"MG1": "p"}, {"MG1": module.action_space}).save(tmp_path)
    file = tmp_path / "policy.json"
    whole = file.read_text()
    for old, new, told in (
        ('"width": 5', '"width": 6', r"layer 2 of 'p' gives 15 numbers, its memory takes 18"),
        ('"place": 2', '"place": 3', r"'p' has 5 layers; a memory after 3 takes 6"),
    ):
        file.write_text(whole.replace(old, new))
        with pytest.raises(PowerGridError, match=told):
            Policy.load(tmp_path)


class CueEnv(ToyGridEnv):
    """Two agents that each see a sign at the first step only, and shall say at the last which it was."""

    steps = 8

    def __init__(self, config: Any = None) -> None:
        super().__init__({"width": 2, "actions": "one"})

    def _observe(self) -> dict[str, np.ndarray]:
        if self._t == 0:
            self._cue = {a: self._rng.choice([-1.0, 1.0]) for a in self.agents}
        last = float(self._t == self.steps - 1)
        return {a: np.array([cue * (self._t == 0), last], np.float32) for a, cue in self._cue.items()}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        last = self._t == self.steps - 1
        rewards = {a: -float((own[0] - self._cue[a]) ** 2) * last for a, own in actions.items()}
        self._t += 1
        over = self._t >= self.steps
        infos: dict[str, Any] = {a: {} for a in self.agents}
        return self._observe(), rewards, {"__all__": False}, {"__all__": over}, infos


@pytest.mark.slow
def test_a_sign_seen_at_the_first_step_alone_is_recalled_at_the_last() -> None:
    """Without it the best is to say nothing: -1 for each agent."""
    came = {}
    for network in ("perceptron", "gru"):
        settings: dict[str, Any] = {
            "train_batch_size": 512, "minibatch_size": 256, "num_epochs": 8, "hidden": [16], "gru_width": 16,
            "max_seq_len": 4, "num_env_runners": 0, "num_envs_per_env_runner": 8, "lr": 5e-3, "lr_end": None,
            "gamma": 1.0, "initial_log_std": -1.0, "bootstrap_horizon": False, "network": network,
        }  # fmt: skip
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 (RLlib shuffles minibatches by it)
        config = ppo_config({}, env=CueEnv, **settings)
        runner = MultiAgentEnvRunner(config=config, worker_index=0)
        learner = config.build_learner(spaces=runner.get_spaces())
        how = {"num_epochs": 8, "minibatch_size": 256, "shuffle_batch_per_epoch": True}
        sampled: list[Any] = []
        for _ in range(20):
            sampled = runner.sample(num_timesteps=512, explore=True)
            learner.update(episodes=sampled, timesteps={"num_env_steps_sampled_lifetime": 0}, **how)
            runner.set_state({"rl_module": learner.get_state()["rl_module"]})
        sampled = runner.sample(num_episodes=32, explore=False)
        came[network] = float(np.mean([episode.get_return() for episode in sampled])) / 2
        runner.stop()
    assert came["perceptron"] < -0.8
    assert came["gru"] > -0.4
