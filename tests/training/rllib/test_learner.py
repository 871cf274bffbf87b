"""GridPPOLearner against RLlib's own learner: the same episodes, the same parameters after."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.minibatch_utils import MiniBatchCyclicIterator

from powergrid.training.rllib.config import algorithm_config, ppo_config
from powergrid.training.rllib.learner import GridPPOLearner, Minibatches
from powergrid.training.rllib.modules import FastTanh
from powergrid.training.runs.session import RaySession, build_algorithm
from tests.training.conftest import TINY
from tests.training.rllib.test_env_runner import flatten
from tests.training.toy import ToyGridEnv

pytestmark = pytest.mark.usefixtures("ray_session")
TIMESTEPS = {"num_env_steps_sampled_lifetime": 0}
MEMORY = {"network": "gru", "max_seq_len": 16}


def learners(env_config: dict[str, Any], algorithm: str = "ppo", **settings: Any) -> tuple[list[Any], list[Any]]:
    """Build the stock learner and ours with the same parameters, and sample a batch that both shall learn from."""
    made: list[Any] = []
    episodes: list[Any] = []
    for learner in ("stock", "grid"):
        config = algorithm_config(
            env_config, algorithm, env=ToyGridEnv, **{**TINY, "seed": 2, "learner": learner, **settings}
        )
        runner = MultiAgentEnvRunner(config=config, worker_index=0)
        torch.manual_seed(0)
        episodes = episodes or runner.sample(num_timesteps=4 * 70, explore=True)
        torch.manual_seed(1)
        made.append(config.build_learner(spaces=runner.get_spaces()))
        runner.stop()
    return made, episodes


def update(learner: Any, episodes: list[Any], passes: int = 1) -> dict[str, float]:
    np.random.seed(0)  # noqa: NPY002 (RLlib shuffles minibatches by it)
    results: dict[str, float] = {}
    for _ in range(passes):
        results = flatten(
            learner.update(
                episodes=[copy.deepcopy(episode) for episode in episodes],
                timesteps=TIMESTEPS,
                num_epochs=3,
                minibatch_size=90,
                shuffle_batch_per_epoch=True,
            )
        )
    return {name: value for name, value in results.items() if "connector" not in name and "throughput" not in name}


def parameters(learner: Any) -> dict[str, np.ndarray]:
    state = learner.module.get_state()
    return {f"{policy}/{name}": values for policy, part in state.items() for name, values in part.items()}


@pytest.mark.parametrize(
    ("env_config", "settings"),
    [
        ({}, {}),
        ({}, {"policies": "independent", "use_kl_loss": True, "vf_clip_param": 0.5, "grad_clip": 0.1}),
        ({"actions": "dict"}, {"use_kl_loss": True, "activation": "relu"}),
        ({"actions": "discrete"}, {"entropy_coeff": 0.1, "free_log_std": False}),
        ({}, {"algorithm": "mappo", "free_log_std": False}),
    ],
    ids=["shared", "independent_kl_clips", "dict", "discrete", "mappo"],
)
def test_update_moves_parameters_as_the_stock_learner_does(env_config: Any, settings: Any) -> None:
    (stock, own), episodes = learners(env_config, **settings)
    before = parameters(own)
    assert type(own) is GridPPOLearner
    assert type(stock) is not GridPPOLearner
    expected, got = update(stock, episodes, passes=2), update(own, episodes, passes=2)
    after, theirs = parameters(own), parameters(stock)
    moved = max(float(np.abs(after[name] - before[name]).max()) for name in after)
    assert moved > 1e-3  # Adam's first steps are of the size of the learning rate
    for name, values in theirs.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-4, atol=2e-2 * moved, err_msg=name)
    differences = np.concatenate([np.ravel(after[name] - theirs[name]) for name in after])
    assert np.sqrt(np.mean(differences**2)) < 1e-3 * moved
    assert set(got) == set(expected)
    assert got == pytest.approx(expected, rel=2e-3, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    ("env_config", "settings"),
    [
        ({}, {}),
        ({}, MEMORY),
        ({"actions": "dict"}, MEMORY),
        ({"actions": "discrete"}, {**MEMORY, "algorithm": "mappo"}),
    ],
    ids=["perceptron", "memory", "memory_dict", "memory_mappo"],
)
def test_one_gradient_equals_the_stock_learners(env_config: Any, settings: Any) -> None:
    (stock, own), episodes = learners(env_config, use_kl_loss=True, **settings)
    gradients = []
    for learner in (stock, own):
        batch = learner._learner_connector(
            rl_module=learner.module,
            batch={},
            episodes=[copy.deepcopy(episode) for episode in episodes],
            shared_data={},
            metrics=learner.metrics,
        )
        losses = learner.compute_losses(fwd_out=learner.module.forward_train(batch), batch=batch)
        found = learner.compute_gradients(losses)
        assert all(ref is param for ref, param in zip(found, learner.module["grid_policy"].parameters(), strict=True))
        gradients.append([grad.clone() for grad in found.values()])
    for own_gradient, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(own_gradient, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("skip", [False, True])
def test_gradients_that_are_not_finite_are_treated_as_by_the_stock_learner(skip: bool) -> None:
    (stock, own), _ = learners({})
    for learner in (stock, own):
        learner.config = learner.config.copy(copy_frozen=False)
        learner.config.torch_skip_nan_gradients = skip
        params = learner.get_parameters(learner.module["grid_policy"])
        gradients = {learner.get_param_ref(param): torch.full_like(param, 0.5) for param in params}
        next(iter(gradients.values())).view(-1)[0] = float("nan")
        learner.apply_gradients(gradients)
    for name, values in parameters(stock).items():
        np.testing.assert_allclose(parameters(own)[name], values, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("rows", "size", "epochs", "count"), [((70, 100), 32, 3, 0), ((30, 30), 64, 9, 0), ((64, 50), 32, 2, 9)]
)
def test_minibatches_are_rllibs_row_by_row(rows: Any, size: int, epochs: int, count: int, shuffle: bool) -> None:
    """Batches that a minibatch divides, that it does not, and that are smaller than one."""
    columns = {
        f"p{i}": {"obs": torch.arange(3.0 * n).reshape(n, 3), "actions": {"a": torch.arange(n)}}
        for i, n in enumerate(rows)
    }
    stock = MultiAgentBatch({name: SampleBatch(copy.deepcopy(each)) for name, each in columns.items()}, 17)
    arguments: dict[str, Any] = {"minibatch_size": size, "num_epochs": epochs}
    np.random.seed(4)  # noqa: NPY002
    theirs = list(
        MiniBatchCyclicIterator(stock, **arguments, shuffle_batch_per_epoch=shuffle, num_total_minibatches=count)
    )
    np.random.seed(4)  # noqa: NPY002
    ours = list(Minibatches(columns, 17, **arguments, shuffle=shuffle, num_minibatches=count))
    assert len(ours) == len(theirs) > 2
    for own, expected in zip(ours, theirs, strict=True):
        assert own.env_steps() == expected.env_steps()
        for policy, batch in own.policy_batches.items():
            assert len(batch) == len(expected.policy_batches[policy]) == size
            torch.testing.assert_close(batch["obs"], expected.policy_batches[policy]["obs"], rtol=0, atol=0)
            torch.testing.assert_close(
                batch["actions"]["a"], expected.policy_batches[policy]["actions"]["a"], rtol=0, atol=0
            )


def test_fast_tanh_is_tanh_with_its_gradient_and_torchs_own_where_nothing_is_learnt() -> None:
    x = torch.cat([torch.linspace(-9, 9, 4001), torch.tensor([0.0, 1e-30, 100.0, float("inf")])])
    with torch.no_grad():
        assert torch.equal(FastTanh()(x), torch.tanh(x))
    x.requires_grad_(True)
    torch.testing.assert_close(FastTanh()(x), torch.tanh(x), rtol=5e-7, atol=0)
    gradients = [torch.autograd.grad(f(x)[:-1].sin().sum(), x)[0] for f in (FastTanh(), torch.tanh)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_checkpoint_of_the_stock_learner_goes_on_with_ours(tmp_path) -> None:
    """And with Adam's moments: after one more update both are where they would be had nothing been saved."""
    (stock, own), episodes = learners({})
    update(stock, episodes)
    own.set_state(stock.get_state())
    update(stock, episodes)
    update(own, episodes)
    for name, values in parameters(stock).items():
        np.testing.assert_allclose(parameters(own)[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, which RLlib starts learners by
def test_learning_in_a_process_of_its_own_works() -> None:
    config = ppo_config({}, env=ToyGridEnv, **TINY)
    config.learners(num_learners=1)
    assert config.learner_class is GridPPOLearner
    algorithm = build_algorithm(config, RaySession(None))
    try:
        result = algorithm.train()
        assert np.isfinite(result["learners"]["grid_policy"]["vf_loss"])
        assert result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"] > 0
    finally:
        algorithm.stop()
