"""Positions that a policy says from where devices stand."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import PowerGridError
from powergrid.training.policies.export import network_of_module
from powergrid.training.policies.inference import Network, Policy
from powergrid.training.policies.positions import StandingPositions, stand_by
from powergrid.training.rllib.config import build_algorithm_config
from powergrid.training.rllib.planning.facts import EnvFacts, probe_env
from powergrid.training.runs.settings import make_settings, settings_of_run

SPACE = gym.spaces.MultiDiscrete([5, 3, 2])


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def seen_at(position: int, count: int) -> float:
    return 2.0 * position / (count - 1) - 1.0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("position", [0, 1, 16, 31, 32])
def test_first_policy_stays_nine_times_of_ten_wherever_a_device_stands(share: float, position: int) -> None:
    standing, (stay,) = stand_by(gym.spaces.MultiDiscrete([33]), (1,), share)
    outputs = np.zeros((1, standing.outputs), np.float32)
    outputs[0, standing.width] = stay
    odds = softmax(standing.place(outputs, np.array([[0.3, seen_at(position, 33)]], np.float32))[0])
    assert odds.sum() == pytest.approx(1.0)
    if share == 0.0:
        np.testing.assert_allclose(odds, 1 / 33)
    elif share == 0.5:
        assert 0.9 - 1e-3 <= odds[position] <= 0.95  # at the ends of the range it can move one way only
    else:
        assert odds[position] > 0.98


def test_logits_are_those_computed_by_hand() -> None:
    # the first device stands at 4 of 0..4, the second tells nothing, the third at 0 of 0..1
    standing = StandingPositions((2, 0), (0, 8), (5, 2), (0.5, 0.25), 10)
    outputs = np.arange(14, dtype=np.float32)[None]
    outputs[0, 10:] = 3.0, 2.0, -1.0, 7.0  # staying and above, device by device
    placed = standing.place(outputs, np.array([[seen_at(0, 2), 0.1, seen_at(4, 5)]], np.float32))
    away = np.array([-4, -3, -2, -1, 0])
    first = np.arange(5) - 2.0 * (away < 0) + 3.0 * (away == 0) - 0.5 * away**2
    np.testing.assert_allclose(placed[0], [*first, 5, 6, 7, 8 - 1.0, 9 + 7.0 - 0.25])


def policy(rng: np.random.Generator) -> Policy:
    standing, _ = stand_by(SPACE, (3, -1, 0), 0.5)
    shapes = [(8, 4), (standing.outputs, 8)]
    weights = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
    biases = tuple(rng.normal(size=shape[0]).astype(np.float32) for shape in shapes)
    return Policy({"p": Network(weights, biases, ("tanh", "linear"), standing)}, {"a": "p"}, {"a": SPACE})


def test_policy_is_the_same_saved_loaded_and_in_torch(tmp_path) -> None:
    rng = np.random.default_rng(0)
    written = policy(rng)
    written.save(tmp_path)
    seen = rng.uniform(-1, 1, (200, 4)).astype(np.float32)
    actions = written.act_batch("a", seen)
    assert len({tuple(action) for action in actions.tolist()}) > 5
    for backend in ("numpy", "torch"):
        np.testing.assert_array_equal(Policy.load(tmp_path, backend).act_batch("a", seen), actions)
    outputs = written.networks["p"].torch_module()(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(outputs, written.networks["p"].forward(seen), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('"columns": [\n    3', '"columns": [\n    4'),
        ('"width": 10', '"width": 8'),
        ('"counts": [\n    5', '"counts": [\n    9'),
    ],
)
def test_damaged_positions_are_refused(tmp_path, was: str, becomes: str) -> None:
    policy(np.random.default_rng(0)).save(tmp_path)
    file = tmp_path / "policy.json"
    told = file.read_text()
    assert was in told
    file.write_text(told.replace(was, becomes))
    with pytest.raises(PowerGridError, match="no policy that can be read"):
        Policy.load(tmp_path)


def test_positions_are_found_where_agents_see_their_switchgear() -> None:
    facts = probe_env(NetworkedGridEnv, {"env_name": "ieee13_voltvar"}, step=True)
    assert facts.standing["batteries"] == (-1,)  # powers do not stay by themselves
    with NetworkedGridEnv({"env_name": "ieee13_voltvar"}) as env:
        seen, _ = env.reset(seed=1)
        wanted = np.array([30, 2, 16])
        seen, *_ = env.step({**env.neutral_actions(), "regulators": wanted})
    told = [seen["regulators"][column] for column in facts.standing["regulators"]]
    np.testing.assert_allclose(told, [seen_at(position, 33) for position in wanted], atol=1e-6)


def test_run_from_before_there_was_a_choice_goes_on_as_it_began() -> None:
    assert settings_of_run("ppo", {"lr": 0.01}).positions == "absolute"
    assert settings_of_run("ppo", {"positions": "standing"}).positions == "standing"
    assert settings_of_run("dqn", {}).lr == 3e-4
    with pytest.raises(PowerGridError, match="unknown algorithm ''"):
        settings_of_run("", {"lr": 0.01})


@pytest.mark.parametrize("box", [0, 2])
@pytest.mark.parametrize("mappo", [False, True])
def test_module_of_rllib_and_its_arrays_give_the_same_logits(box: int, mappo: bool) -> None:
    space = gym.spaces.Dict({"continuous": gym.spaces.Box(-1, 1, (box,)), "discrete": SPACE}) if box else SPACE
    seen = gym.spaces.Box(-1, 1, (4,), np.float32)
    neutral = {"continuous": np.zeros(box), "discrete": np.array([2, 1, 1])} if box else np.array([2, 1, 1])
    facts = EnvFacts(("a",), {"a": seen}, {"a": space}, None, {"a": neutral}, {"a": (3, -1, 0)})
    settings = make_settings("mappo" if mappo else "ppo", {"hidden": [8]})
    config = build_algorithm_config(NetworkedGridEnv, {}, facts, {"a": "p"}, settings)
    assert config.get_config_for_module("p").entropy_coeff == (0.003 if box else 0.0005)
    spec = config.rl_module_spec["p"]
    spec.observation_space, spec.action_space = seen, space
    torch.manual_seed(0)
    module = spec.build()
    network = network_of_module(module)  # which compares the two on random observations
    assert network.inputs == 2 * box + 10
    at = np.array([[seen_at(place, 2), 0.0, 0.0, seen_at(tap, 5)] for place in (0, 1) for tap in range(5)], np.float32)
    logits = network.forward(at)
    np.testing.assert_array_equal(logits[:, 2 * box : 2 * box + 5].argmax(1), [*range(5), *range(5)])
    np.testing.assert_array_equal(logits[:, -2:].argmax(1), [0] * 5 + [1] * 5)
    batch = {"obs": torch.from_numpy(at), "joint_observation": torch.zeros(10, 9)}
    learnt = module.forward_train(batch)["action_dist_inputs"]
    np.testing.assert_allclose(learnt.detach().numpy(), logits, rtol=1e-4, atol=1e-5)
    learnt.sum().backward()
    assert all(layer.grad is not None for layer in module.pi.parameters())
