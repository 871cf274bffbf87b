"""Policies that add to what rules propose: at first they do as rules do, and they are played, kept and exported so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.evaluation.players.trained import find_differences
from powergrid.scenario import load_scenario
from powergrid.training import algorithm_config, export_policy, export_run, load_policy, ppo_config, train
from powergrid.training.policies.inference import Network, Policy
from powergrid.training.policies.positions import ProposedMeans, find_proposed
from powergrid.training.rllib.config import initial_bias
from powergrid.training.rllib.modules import PolicyActor
from powergrid.training.rllib.planning.facts import probe_env
from powergrid.training.runs.session import RaySession, build_algorithm
from powergrid.training.runs.settings import make_settings
from powergrid.training.runs.train import _begin_as_rules
from tests.training.policies.test_export import run_file
from tests.training.toy import ToyGridEnv

HOURS = {"episode_length": 24, "start_hour": 14.0}
SHORT = {"env_name": "ieee13_mg", **HOURS}
SMALL: dict[str, Any] = {
    "num_env_runners": 0, "num_envs_per_env_runner": 4, "train_batch_size": 96, "minibatch_size": 48, "num_epochs": 1,
    "hidden": [16], "validation_episodes": 2,
}  # fmt: skip


def test_means_are_what_is_proposed_and_what_is_added() -> None:
    means = ProposedMeans((3, 1))
    inputs, seen = np.array([[0.5, -0.25, -2.0, -2.0, 7.0]], np.float32), np.array([[9.0, 0.1, 9.0, -0.4]], np.float32)
    expected = [[0.5 - 0.4, -0.25 + 0.1, -2.0, -2.0, 7.0]]
    np.testing.assert_allclose(means.place(inputs, seen), expected, rtol=1e-6)
    np.testing.assert_allclose(
        means.place(torch.from_numpy(inputs), torch.from_numpy(seen), torch), expected, rtol=1e-6
    )
    assert find_proposed({1: "b.q_kvar", 0: "b.p_kw"}, {"b.proposed_q_kvar": 4, "b.proposed_p_kw": 2}) == (2, 4)
    assert find_proposed({0: "b.p_kw", 1: "b.q_kvar"}, {"b.proposed_p_kw": 2}) == ()  # all or none


def test_little_that_is_added_is_not_played() -> None:
    means = ProposedMeans((3, 1), deadband=0.25)
    actions, seen = np.array([[-0.2, 0.6], [-1.0, 0.0]], np.float32), np.array([[9.0, 0.1, 9.0, -0.4]] * 2, np.float32)
    expected = [[-0.4, 0.1 + 0.25], [-0.4 - 0.35, 0.1]]  # 0.2 added, 0.5; 0.6 taken, 0.1
    np.testing.assert_allclose(means.settle(actions, seen), expected, atol=1e-6)
    wider = np.concatenate([actions, np.full((2, 2), -3.0, np.float32)], 1)  # spreads, which stay
    settled = means.settle(torch.from_numpy(wider), torch.from_numpy(seen), torch)
    np.testing.assert_allclose(settled, np.c_[expected, np.full((2, 2), -3.0)], atol=1e-6)
    assert ProposedMeans((3, 1)).settle(actions, seen) is actions


@pytest.mark.parametrize("mixed", [False, True])
def test_what_is_drawn_is_learnt_from_and_what_is_left_of_it_is_played(mixed: bool) -> None:
    scenario, agent = {"env_name": "ieee34_ieee13"} if mixed else SHORT, "MG1"
    facts = probe_env(NetworkedGridEnv, scenario | {"proposals": "rule_based"}, step=True)
    config = ppo_config(scenario, preset="residual", policies="independent", proposals_deadband=0.05, **SMALL)
    with NetworkedGridEnv(config.env_config) as env:
        module = config.get_multi_rl_module_spec(env=env).build()[f"{agent}_policy"]
    actor = PolicyActor(module, [agent], facts.action_spaces[agent], normalize=True, clip=False)
    seen = np.random.default_rng(0).uniform(-0.3, 0.3, (200, 1, module.observation_space.shape[0])).astype(np.float32)
    told = actor.act(seen, explore=True, t=0)
    drawn, played = (told[name] for name in ("actions", "actions_for_env"))
    added = (drawn["continuous"] if mixed else drawn)[:, 0] - seen[:, 0, list(facts.proposed[agent])]
    left = _as_share(played, mixed, facts.action_spaces[agent])[:, 0] - seen[:, 0, list(facts.proposed[agent])]
    np.testing.assert_allclose(left, np.sign(added) * np.maximum(np.abs(added) - 0.05, 0.0), atol=1e-5)
    assert 0.1 < np.mean(np.abs(left) > 1e-5) < 0.9
    if mixed:
        np.testing.assert_array_equal(drawn["discrete"], played["discrete"])


def _as_share(played: Any, mixed: bool, space: Any) -> Any:
    box = space["continuous"] if mixed else space
    return 2.0 * ((played["continuous"] if mixed else played) - box.low) / (box.high - box.low) - 1.0


def test_first_policy_does_as_rules_do(ray_session: None, tmp_path: Path) -> None:
    built = build_algorithm(ppo_config(SHORT, preset="residual", **SMALL), RaySession(None))
    try:
        assert built.config.env_config["proposals"] == "rule_based"
        export_policy(built, tmp_path / "policy")
        with torch.no_grad():  # by the runner's shorter way the means are the same
            seen = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (50, 33)).astype(np.float32))
            module = built.get_module("grid_policy")
            explored = module.forward_exploration({"obs": seen}, t=0)["action_dist_inputs"]
            np.testing.assert_allclose(
                explored, module.forward_inference({"obs": seen})["action_dist_inputs"], atol=1e-5
            )
        assert np.isfinite(built.train()["learners"]["grid_policy"]["total_loss"])
    finally:
        built.stop()
    policy = load_policy(tmp_path / "policy")
    with NetworkedGridEnv(SHORT | {"proposals": "rule_based"}) as env:
        seen, _ = env.reset(seed=1)
        for _ in range(5):
            proposed = env.task.channels.values[0]
            actions = policy.act(seen)
            by_name = {channel.name: proposed[i] for i, channel in enumerate(env.task.channels.table)}
            for row in env.describe().actions.itertuples():
                device, _, name = row.name.partition(".")
                share = 2.0 * (by_name[f"{device}.proposed_{name}"] - row.low) / (row.high - row.low) - 1.0
                assert actions[row.agent][row.position] == pytest.approx(share, abs=0.1)
            seen, *_ = env.step(actions)


def test_what_is_added_stays_small_where_adding_costs(ray_session: None) -> None:
    far = []
    for coeff in (0.0, 1e3):
        config = ppo_config(SHORT, preset="residual", proposals_coeff=coeff, lr=0.01, lr_end=None, **SMALL)
        built = build_algorithm(config, RaySession(None))
        try:
            built.train()
            module = built.get_module("grid_policy")
            with torch.no_grad():
                seen = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (50, 33)).astype(np.float32))
                given = module.forward_inference({"obs": seen})["action_dist_inputs"]
            far.append(float(module.proposed.added(given, seen).square().mean()))
        finally:
            built.stop()
    assert far[1] < 0.3 * far[0]


def test_run_is_shown_proposals_wherever_it_is_played(ray_session: None, tmp_path: Path) -> None:
    settings = {**SMALL, "preset": "residual", "proposals_deadband": 0.02, "lr": 1e-9, "iterations": 1}
    run = train(SHORT, settings, out_dir=tmp_path, name="run").folder
    assert (tmp_path / "run" / "scenario.yaml").read_text().count("proposals: rule_based") == 1
    report = evaluate(SHORT, ["rule_based", "no_control", ("run", load_policy(run))], days=2)
    means = report.frame.groupby("policy")["reward"].mean()
    assert find_differences(load_policy(run), load_scenario("ieee13_mg", HOURS)) == []
    assert means["run"] == pytest.approx(means["rule_based"], abs=1e-6)  # the little that is added at first is nothing
    with NetworkedGridEnv(SHORT) as env:
        plain, _ = env.reset(seed=0)
    # where nothing is proposed it does not act as if
    with pytest.raises(
        PowerGridError, match=r"trained on \(n, 33\); it adds to what rules propose, which proposals='rule_based' shows"
    ):
        load_policy(run).act(plain)
    policy = load_policy(run, backend="torch")
    seen = np.random.default_rng(1).uniform(-1, 1, (20, 33)).astype(np.float32)
    np.testing.assert_allclose(policy.act_batch("MG1", seen), load_policy(run).act_batch("MG1", seen), atol=1e-6)
    for format in ("onnx", "torchscript"):
        file, *_ = export_run(run, tmp_path / format, format=format)
        np.testing.assert_allclose(run_file(file, seen, ["action"])["action"], policy.act_batch("MG1", seen), atol=1e-6)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    layers = (np.zeros((2, 4), np.float32),), (np.zeros(2, np.float32),), ("linear",)
    box = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    Policy({"p": Network(*layers, proposed=ProposedMeans((3,)))}, {"a": "p"}, {"a": box}).save(tmp_path)
    seen = np.array([[0.0, 0.0, 0.0, 0.6]], np.float32)
    assert Policy.load(tmp_path).act_batch("a", seen)[0] == pytest.approx(0.6)
    told = json.loads((tmp_path / "policy.json").read_text())
    assert told["format"] == 6
    assert told["proposed"]["p"].pop("deadband") == 0.0  # as files from before there was one
    (tmp_path / "policy.json").write_text(json.dumps(told))
    assert Policy.load(tmp_path).networks["p"].proposed == ProposedMeans((3,))
    told["proposed"]["p"]["columns"] = [4]
    (tmp_path / "policy.json").write_text(json.dumps(told))
    with pytest.raises(PowerGridError, match=r"what is proposed at \[4\] of 4 entries does not fit"):
        Policy.load(tmp_path)


def test_positions_are_chosen_as_ever_and_numbers_begin_at_nothing() -> None:
    mixed = {"env_name": "ieee13_voltvar", "devices.battery_1.levels": None}
    facts = probe_env(NetworkedGridEnv, mixed | {"proposals": "rule_based"}, step=True)
    assert facts.proposed["regulators"] == ()
    assert len(facts.proposed["batteries"]) == facts.action_spaces["batteries"].shape[0]
    config = ppo_config(mixed, preset="residual", policies="independent", **SMALL)
    specs = config.rl_module_spec.rl_module_specs
    assert "proposed" not in specs["regulators_policy"].model_config
    told = specs["batteries_policy"].model_config
    assert told["initial_bias"] == [0.0] * len(facts.proposed["batteries"])
    neutral = [facts.neutral_actions["batteries"]]
    assert len(initial_bias(facts.action_spaces["batteries"], neutral, 0.5)) == len(told["initial_bias"])


def test_what_does_not_go_with_proposals_is_told() -> None:
    with pytest.raises(ScenarioError, match="proposals do not go with share_unequal"):
        ppo_config("ieee13_mg", proposals="rule_based", share_unequal=True)
    with pytest.raises(ScenarioError, match=r"proposals: .* is not powergrid's own environment"):
        ppo_config({}, env=ToyGridEnv, proposals="rule_based")
    with pytest.raises(ScenarioError, match="proposals: agents decide positions alone"):
        ppo_config("ieee13_voltvar", proposals="rule_based")
    with pytest.raises(ScenarioError, match="proposals_coeff: nothing is proposed that a policy could add to"):
        ppo_config("ieee13_mg", proposals_coeff=3.0)
    with pytest.raises(ScenarioError, match="proposals_deadband: nothing is proposed that a policy could add to"):
        ppo_config("ieee13_mg", proposals_deadband=0.1)
    for other in ({"env_runner": "stock", "envs_per_day": 1}, {"demonstrations": "rule_based"}):
        with pytest.raises(ScenarioError, match=r"proposals_deadband: neither .* set it to 0"):
            ppo_config("ieee13_mg", preset="residual", proposals_deadband=0.1, **other)
    with pytest.raises(ScenarioError, match="sac has no setting 'proposals'"):
        algorithm_config("ieee13_mg", "sac", proposals="rule_based")


@pytest.mark.parametrize(
    ("config", "asked", "algorithm", "begins"),
    [
        ({}, {"lr": 1e-3}, "mappo", "residual"),
        ({}, {"num_envs_per_env_runner": 1, "lr": 1e-4}, "ppo", "residual"),  # no other plays its days
        ({"telemetry": {"readings": {"all": {"loss": 0.2}}}}, {}, "ppo", "imitate"),  # rules see what that keeps back
        ({}, {"preset": "fast"}, "ppo", None),
        ({}, {"share_unequal": True}, "ppo", None),
        ({}, {"observation_filter": "mean_std"}, "ppo", None),
        ({}, {"learner": "stock"}, "ppo", None),
        ({}, {}, "sac", None),
        ({"env_name": "ieee34_ieee13"}, {}, "ppo", "residual"),  # switches beside numbers
        ({"env_name": "ieee13_voltvar"}, {}, "ppo", None),  # of positions alone the rules are a poor start
    ],
)
def test_policies_of_numbers_begin_as_rules_where_nothing_else_is_asked(
    config: dict[str, Any], asked: dict[str, Any], algorithm: str, begins: str | None
) -> None:
    chosen, facts = make_settings(algorithm, asked), probe_env(NetworkedGridEnv, {"env_name": "ieee13_mg"} | config)
    found = _begin_as_rules(algorithm, asked, chosen, NetworkedGridEnv, facts)
    if begins is None or found is None:
        assert found is begins
        return
    assert {found.proposals, found.demonstrations} == {"rule_based", None}
    assert (found.proposals is not None) == (begins == "residual")
    assert found.lr == asked.get("lr", make_settings("ppo", {"preset": begins}).lr)


def test_a_run_says_how_it_began(ray_session: None, tmp_path: Path) -> None:
    for preset, proposed in ((None, "rule_based"), ("fast", None)):
        asked = {**SMALL, "iterations": 1, "validate_every": 0} | ({} if preset is None else {"preset": preset})
        run = train(SHORT, asked, out_dir=tmp_path, name=str(preset)).folder
        told = json.loads((run / "run.json").read_text())
        assert told["settings"]["proposals"] == told["env_config"].get("proposals") == proposed
        assert told["settings"]["lr"] == make_settings("ppo", {"preset": preset or "residual"}).lr


def test_deadband_is_kept_with_the_policy(tmp_path: Path) -> None:
    layers = (np.array([[0.0, 1.0], [0.0, 0.0]], np.float32),), (np.zeros(2, np.float32),), ("linear",)
    box = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    Policy({"p": Network(*layers, proposed=ProposedMeans((0,), 0.1))}, {"a": "p"}, {"a": box}).save(tmp_path)
    assert json.loads((tmp_path / "policy.json").read_text())["format"] == 8
    seen = np.array([[0.5, 0.05], [0.5, -0.3]], np.float32)
    for backend in ("numpy", "torch"):
        np.testing.assert_allclose(Policy.load(tmp_path, backend).act_batch("a", seen)[:, 0], [0.5, 0.3], atol=1e-6)


def test_runner_that_plays_what_is_drawn_is_refused(ray_session: None) -> None:
    config = ppo_config(SHORT, preset="residual", proposals_deadband=0.1, **SMALL)
    config.callbacks(on_episode_step=lambda **told: None)
    with pytest.raises(PowerGridError, match=r"proposals_deadband: set it to 0, for a callback wants every step"):
        build_algorithm(config, RaySession(None)).stop()
