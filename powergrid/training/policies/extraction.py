"""From an RLlib algorithm to a policy that needs neither Ray nor torch; it trains nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.utils.numpy import SMALL_NUMBER

from powergrid.errors import PowerGridError
from powergrid.training.policies.inference import FloatArray, Network, ObservationFilter, Policy
from powergrid.training.policies.spaces import FIT_KEY
from powergrid.training.rllib.agents import probe_env

_TORCH_ACTIVATIONS = {
    "Tanh": "tanh",
    "FastTanh": "tanh",
    "ReLU": "relu",
    "ELU": "elu",
    "SiLU": "swish",
    "Identity": "linear",
}


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
        fits=config.env_config.get(FIT_KEY, {}).get("fits"),
    )


def filters_of_algorithm(algorithm: Any, agents: Iterable[str]) -> dict[str, ObservationFilter]:
    """Copy what the algorithm's MeanStdFilter has learnt of each agent's observations; empty where it has none.

    Raises:
        PowerGridError: Observations go through a connector of another kind, which a policy cannot hold.
    """
    if algorithm.config._env_to_module_connector is None:
        return {}
    from ray.rllib.connectors.connector_v2 import ConnectorV2
    from ray.rllib.connectors.env_to_module import MeanStdFilter

    made: Any = algorithm.config._env_to_module_connector(None, None, None)
    custom = [type(each) for each in (made if isinstance(made, list | tuple) else [made]) if each is not None]
    others = [kind.__name__ for kind in custom if kind is not MeanStdFilter and issubclass(kind, ConnectorV2)]
    if others:
        raise PowerGridError(f"a policy with {', '.join(others)} cannot be exported; only MeanStdFilter can")
    pipeline = algorithm.env_runner._env_to_module
    filters: dict[str, ObservationFilter] = {}
    for connector in (each for each in pipeline.connectors if isinstance(each, MeanStdFilter)):
        learnt: Any = connector._filters or {}
        for agent in agents:
            stats, clip = learnt[agent].running_stats, learnt[agent].clip
            filters[agent] = ObservationFilter(
                np.array(stats.mean, np.float64), np.array(stats.std, np.float64) + SMALL_NUMBER, float(clip or np.inf)
            )
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
        elif kind in _TORCH_ACTIVATIONS and activations:
            activations[-1] = _TORCH_ACTIVATIONS[kind]
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
