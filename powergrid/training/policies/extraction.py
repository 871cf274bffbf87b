"""From an RLlib algorithm to a policy that needs neither Ray nor torch; it trains nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core import COMPONENT_ENV_TO_MODULE_CONNECTOR
from ray.rllib.utils.filter import RunningStat
from ray.rllib.utils.numpy import SMALL_NUMBER

from powergrid.errors import PowerGridError
from powergrid.training.policies.inference import TORCH_LAYERS, FloatArray, Network, ObservationFilter, Policy
from powergrid.training.policies.spaces import FIT_KEY
from powergrid.training.rllib.agents import probe_env

_ACTIVATION_OF = {layer: name for name, layer in TORCH_LAYERS.items()} | {"FastTanh": "tanh"}

#: RLlib's connectors from observations to a module where none are added.
_DEFAULT_PIECES = {
    "AddObservationsFromEpisodesToBatch", "AddTimeDimToBatchAndZeroPad", "AddStatesFromEpisodesToBatch",
    "AgentToModuleMapping", "BatchIndividualItems", "NumpyToTensor",
}  # fmt: skip


def export_policy(algorithm: Any, folder: str | Path) -> Path:
    """Write the policy of an RLlib algorithm to a folder that :func:`load_policy` reads.

    Raises:
        PowerGridError: A network is not a plain perceptron, or its numpy form disagrees with it.
    """
    target = Path(folder)
    policy_of_algorithm(algorithm).save(target)
    return target


def policy_of_algorithm(algorithm: Any) -> Policy:
    """Copy the current networks of an RLlib algorithm, with its filters of observations."""
    config = algorithm.config
    policy_of = getattr(config.policy_mapping_fn, "policy_of", None)
    if policy_of is None:
        agents = probe_env(config.env, config.env_config).agents
        policy_of = {agent: str(config.policy_mapping_fn(agent, None)) for agent in agents}
    networks = {name: network_of_module(algorithm.get_module(name)) for name in sorted(set(policy_of.values()))}
    spaces = {agent: algorithm.get_module(name).action_space for agent, name in policy_of.items()}
    return Policy(
        networks,
        policy_of,
        spaces,
        normalize_actions=bool(config.normalize_actions),
        clip_actions=bool(config.clip_actions),
        filters=filters_of_algorithm(algorithm, policy_of),
        fits=config.env_config.get(FIT_KEY, {}).get("fits") or {},
    )


def filters_of_algorithm(algorithm: Any, agents: Iterable[str]) -> dict[str, ObservationFilter]:
    """Copy what the algorithm's MeanStdFilter has learnt of each agent's observations; empty where it has none.

    Raises:
        PowerGridError: Observations go through a connector of another kind, which a policy cannot hold.
    """
    from ray.rllib.connectors.env_to_module import MeanStdFilter

    runner, config = algorithm.env_runner, algorithm.config
    pieces = config.build_env_to_module_connector(env=runner.env, spaces=runner.get_spaces()).connectors
    others = sorted({type(piece).__name__ for piece in pieces} - _DEFAULT_PIECES - {MeanStdFilter.__name__})
    if others:
        raise PowerGridError(f"a policy with {', '.join(others)} cannot be exported; only MeanStdFilter can")
    learnt = runner.get_state(components=COMPONENT_ENV_TO_MODULE_CONNECTOR)[COMPONENT_ENV_TO_MODULE_CONNECTOR]
    states = learnt.get(MeanStdFilter.__name__, {})
    filters: dict[str, ObservationFilter] = {}
    for agent in agents if states else ():
        stats: Any = RunningStat.from_state(states[agent]["running_stats"][0])  # of one array: observations are flat
        mean, spread = np.array(stats.mean, np.float64), np.array(stats.std, np.float64)
        # RLlib divides so, lest an observation that never moved divide by zero.
        filters[agent] = ObservationFilter(mean, spread + SMALL_NUMBER, float(states[agent]["clip_by_value"] or np.inf))
    return filters


def network_of_module(module: Any) -> Network:
    """Copy a module's actor into arrays and check that both give the same numbers.

    What comes out is what the action is read from: the distribution's inputs of PPO, the tanh of SAC's means, the
    advantages or values of DQN's actions.
    """
    import torch

    weights: list[FloatArray] = []
    biases: list[FloatArray] = []
    activations: list[str] = []
    for layer in actor_layers(module):
        kind = type(layer).__name__
        if kind == "Linear" and layer.bias is not None:
            weights.append(layer.weight.detach().cpu().numpy().copy())
            biases.append(layer.bias.detach().cpu().numpy().copy())
            activations.append("linear")
        elif kind in _ACTIVATION_OF and activations:
            activations[-1] = _ACTIVATION_OF[kind]
        else:
            raise PowerGridError(f"a policy with a layer of kind {kind} cannot be exported; use a plain perceptron")
    if hasattr(module, "pi_encoder"):  # RLlib squashes SAC's means by tanh; spreads are for exploration alone
        n = len(biases[-1]) // 2
        weights[-1], biases[-1], activations[-1] = weights[-1][:n], biases[-1][:n], "tanh"
    network = Network(tuple(weights), tuple(biases), tuple(activations))
    sample = np.random.default_rng(0).uniform(-2, 2, (8, weights[0].shape[1])).astype(np.float32)
    with torch.no_grad():
        expected = _read_module(module, torch.from_numpy(sample)).cpu().numpy()
    got = network.forward(sample)
    if not np.allclose(got, expected[:, : got.shape[1]], rtol=1e-4, atol=1e-5, equal_nan=True):
        raise PowerGridError("the exported policy disagrees with RLlib's own network")
    return network


def actor_layers(module: Any) -> list[Any]:
    """Return the layers from observation to action, in order."""
    if hasattr(module, "pi_encoder"):
        return [*module.pi_encoder.net.mlp, *module.pi.net.mlp]
    if hasattr(module, "af"):
        return [*module.encoder.net.mlp, *module.af.net.mlp]
    encoder = getattr(module.encoder, "actor_encoder", None) or module.encoder.encoder
    return [*encoder.net.mlp, *module.pi.net.mlp]


def _read_module(module: Any, observations: Any) -> Any:
    """Return what RLlib's own module makes of observations: what :func:`network_of_module` must agree with."""
    if hasattr(module, "af"):
        return module.af(module.encoder({"obs": observations})["encoder_out"])
    inputs = module.forward_inference({"obs": observations})["action_dist_inputs"]
    if hasattr(module, "pi_encoder"):
        return module.get_inference_action_dist_cls().from_logits(inputs).to_deterministic().sample()
    return inputs
