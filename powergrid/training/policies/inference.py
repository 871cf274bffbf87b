"""Use a trained policy without Ray and without torch; it trains nothing and never unpickles.

A policy is a folder of ``policy.json`` (agents, networks, action spaces) and ``weights.npz`` (arrays,
read with ``allow_pickle=False``). The forward pass is numpy; what it gives is checked against
RLlib's own when the policy is written. With torch instead, it is RLlib's own, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from powergrid.errors import PowerGridError, describe_unknown
from powergrid.training.policies.spaces import AgentFit
from powergrid.training.runs.checkpoints import POLICY_FOLDER, find_checkpoint

FloatArray = NDArray[np.float32]
POLICY_FILE = "policy.json"
MANIFEST = "run.json"
WEIGHTS_FILE = "weights.npz"
FORMATS = (1, 2, 3)  # 2: with filters of observations, 3: with agents' own spaces; a reader of less leaves them out

Backend = Literal["numpy", "torch"]

ACTIVATIONS: dict[str, Any] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "linear": lambda x: x,
}


#: The same in torch, by the names of ``torch.nn``.
TORCH_LAYERS = {"tanh": "Tanh", "relu": "ReLU", "elu": "ELU", "swish": "SiLU", "linear": "Identity"}


@dataclass(frozen=True)
class Network:
    """A multi-layer perceptron from observation to the inputs of the action distribution."""

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    activations: tuple[str, ...]

    def forward(self, observations: FloatArray) -> FloatArray:
        """Return the distribution's inputs, shape (n, outputs), for observations of shape (n, inputs)."""
        x = observations
        for weight, bias, activation in zip(self.weights, self.biases, self.activations, strict=True):
            x = ACTIVATIONS[activation](x @ weight.T + bias)
        return x

    def torch_module(self) -> Any:
        """Return the same perceptron as layers of torch."""
        import torch

        layers: list[Any] = []
        for weight, bias, activation in zip(self.weights, self.biases, self.activations, strict=True):
            # without first weights: to draw them would move torch's global generator
            empty: Any = torch.nn.utils.skip_init
            layer = empty(torch.nn.Linear, weight.shape[1], weight.shape[0])
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weight))
                layer.bias.copy_(torch.from_numpy(bias))
            layers += [layer, getattr(torch.nn, TORCH_LAYERS[activation])()]
        return torch.nn.Sequential(*layers).eval().requires_grad_(False)


@dataclass(frozen=True)
class TorchNetwork(Network):
    """The same, computed as RLlib computes it."""

    @cached_property
    def _module(self) -> Any:
        return self.torch_module()

    def forward(self, observations: FloatArray) -> FloatArray:
        """Return the distribution's inputs, bit for bit those of RLlib's module on the same batch."""
        import torch

        outputs: FloatArray = self._module(torch.from_numpy(np.ascontiguousarray(observations))).numpy()
        return outputs


@dataclass(frozen=True)
class ObservationFilter:
    """Scale observations by the mean and spread that training saw: RLlib's MeanStdFilter, no longer learning."""

    mean: NDArray[np.float64]
    divisor: NDArray[np.float64]
    clip: float

    def __call__(self, observations: Any, lib: Any = np) -> Any:
        """Return filtered observations, shape (n, width), in arrays of numpy or of torch."""
        # In float64, as RLlib keeps its statistics, although observations are float32.
        scaled = (observations - lib.asarray(self.mean)) / lib.asarray(self.divisor)
        clipped = lib.clip(scaled, -self.clip, self.clip)
        return clipped.astype(np.float32) if lib is np else clipped.float()


@dataclass(eq=False)
class Policy:
    """Act for every agent the way the trained networks do without exploration."""

    networks: dict[str, Network]
    policy_of: dict[str, str]  # the name of each agent's policy
    action_spaces: dict[str, gym.Space[Any]]  # of each agent's policy
    normalize_actions: bool = field(default=True, kw_only=True)  # networks give [-1, 1] for the bounds of a Box
    clip_actions: bool = field(default=False, kw_only=True)  # where they do not: whether to clip to the bounds
    filters: dict[str, ObservationFilter] = field(default_factory=dict, kw_only=True)  # by agent
    fits: dict[str, AgentFit] = field(default_factory=dict, kw_only=True)  # of agents whose own spaces differ
    feeders: dict[str, str] = field(default_factory=dict, init=False)  # digests of those trained on, if known

    def act(self, observations: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Return each observed agent's action, deterministic and ready for ``env.step``."""
        return {
            agent: _first(self.act_batch(agent, np.asarray(seen, np.float32)[None]))
            for agent, seen in observations.items()
        }

    def act_batch(self, agent: str, observations: NDArray[Any]) -> Any:
        """Return one agent's actions for many observations at once.

        Args:
            agent: The agent's name.
            observations: Shape (n, width).

        Returns:
            Actions with n as first axis; for a Dict space a dict of such arrays.

        Raises:
            PowerGridError: The agent is unknown or the observations have another width.
        """
        if agent not in self.policy_of:
            raise PowerGridError(f"the policy: {describe_unknown('agent', agent, self.policy_of)}")
        network = self.networks[self.policy_of[agent]]
        batch = np.asarray(observations, np.float32)
        fit = self.fits.get(agent)
        width = fit.own_width if fit else network.weights[0].shape[1]
        if batch.ndim != 2 or batch.shape[1] != width:
            raise PowerGridError(
                f"agent {agent!r}: observations of shape {batch.shape}; the policy was trained on (n, {width})"
            )
        actions = self.decide(agent, fit.observe(batch) if fit else batch, network.forward)
        return fit.act(actions) if fit else actions

    def decide(self, agent: str, observations: Any, forward: Callable[[Any], Any], lib: Any = np) -> Any:
        """Return what an agent's policy does, before it is fitted to the agent's own spaces.

        Args:
            agent: The agent's name.
            observations: Shape (n, width), of numpy or of torch.
            forward: Its network.
            lib: ``numpy``, or ``torch``, whose operations an export writes down.
        """
        space, given = self.action_spaces[agent], len(self.networks[self.policy_of[agent]].biases[-1])
        outputs = forward(self.filters[agent](observations, lib) if agent in self.filters else observations)
        # PPO's networks give a spread beside each mean, those of SAC, as they are exported, and of DQN do not.
        actions, used = self._read(space, outputs, 1 if given == gym.spaces.flatdim(space) else 2, lib)
        if used != given:
            raise PowerGridError(f"agent {agent!r}: the network gives {given} numbers, {space} needs {used}")
        return actions

    def _read(self, space: gym.Space[Any], outputs: Any, per_mean: int, lib: Any) -> tuple[Any, int]:
        """Turn distribution inputs into the most likely action; also give how many inputs were used."""
        if isinstance(space, gym.spaces.Dict):
            parts: dict[str, Any] = {}
            used = 0
            for name, part in space.spaces.items():
                parts[name], taken = self._read(part, outputs[:, used:], per_mean, lib)
                used += taken
            return parts, used
        if isinstance(space, gym.spaces.Discrete):
            return outputs[:, : int(space.n)].argmax(1), int(space.n)
        if isinstance(space, gym.spaces.MultiDiscrete):
            edges = [0, *np.cumsum(space.nvec).tolist()]
            return lib.stack([outputs[:, a:b].argmax(1) for a, b in pairwise(edges)], 1), edges[-1]
        if isinstance(space, gym.spaces.Box):
            n = int(np.prod(space.shape))
            return self._scale(space, outputs[:, :n].reshape(-1, *space.shape), lib), n * per_mean
        raise PowerGridError(f"action space {space} is not supported")

    def _scale(self, space: gym.spaces.Box, action: Any, lib: Any) -> Any:
        """Do what RLlib's NormalizeAndClipActions does to a float Box."""
        bounded = bool(np.all(space.bounded_below) and np.all(space.bounded_above))
        if not (bounded if self.normalize_actions else self.clip_actions):
            return action
        low, high = lib.asarray(space.low), lib.asarray(space.high)
        if self.normalize_actions:
            action = low + (action + 1.0) * (high - low) / 2.0
        return lib.minimum(lib.maximum(action, low), high)

    def save(self, folder: Path) -> None:
        """Write ``policy.json`` and ``weights.npz`` into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray[Any]] = {}
        for name, network in self.networks.items():
            for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
                arrays[f"{name}/{i}/weight"], arrays[f"{name}/{i}/bias"] = weight, bias
        for agent, each in self.filters.items():
            arrays[f"filter/{agent}/mean"], arrays[f"filter/{agent}/divisor"] = each.mean, each.divisor
        np.savez(folder / WEIGHTS_FILE, allow_pickle=False, **arrays)
        described = {
            "format": 3 if self.fits else 2 if self.filters else 1,
            "policy_of": self.policy_of,
            "networks": {name: list(network.activations) for name, network in self.networks.items()},
            "action_spaces": {agent: _describe(space) for agent, space in self.action_spaces.items()},
            "normalize_actions": self.normalize_actions,
            "clip_actions": self.clip_actions,
            "filters": {agent: each.clip for agent, each in self.filters.items()},
            "fits": {agent: _describe_fit(fit) for agent, fit in self.fits.items()},
        }
        (folder / POLICY_FILE).write_text(json.dumps(described, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, backend: Backend = "numpy") -> Policy:
        """Read what :meth:`save` wrote."""
        if backend not in ("numpy", "torch"):
            raise PowerGridError(describe_unknown("backend", str(backend), ["numpy", "torch"]))
        kind = TorchNetwork if backend == "torch" else Network
        try:
            described = json.loads((folder / POLICY_FILE).read_text())
            if described.get("format") not in FORMATS:
                raise ValueError(f"format {described.get('format')!r}; this version reads {FORMATS}")
            with np.load(folder / WEIGHTS_FILE, allow_pickle=False) as arrays:
                networks = {
                    name: kind(
                        weights=tuple(arrays[f"{name}/{i}/weight"] for i in range(len(activations))),
                        biases=tuple(arrays[f"{name}/{i}/bias"] for i in range(len(activations))),
                        activations=tuple(activations),
                    )
                    for name, activations in described["networks"].items()
                }
                filters = {
                    agent: ObservationFilter(arrays[f"filter/{agent}/mean"], arrays[f"filter/{agent}/divisor"], clip)
                    for agent, clip in described.get("filters", {}).items()
                }
            spaces = {agent: _restore(space) for agent, space in described["action_spaces"].items()}
            return cls(
                networks,
                described["policy_of"],
                spaces,
                normalize_actions=described["normalize_actions"],
                clip_actions=described["clip_actions"],
                filters=filters,
                fits={agent: _restore_fit(fit, spaces[agent]) for agent, fit in described.get("fits", {}).items()},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PowerGridError(f"{folder}: no policy that can be read: {error}") from error


def load_policy(run_or_checkpoint: str | Path, *, backend: Backend = "numpy") -> Policy:
    """Load a trained policy; starts no Ray and unpickles nothing.

    Args:
        run_or_checkpoint: A run folder (its best checkpoint, else its latest), one checkpoint, or a
            folder written by :func:`export_policy`.
        backend: ``"numpy"`` needs no torch and agrees with the trained module to rounding; ``"torch"`` gives the
            module's deterministic action bit for bit.

    Raises:
        PowerGridError: There is no policy there.
    """
    folder = Path(run_or_checkpoint).expanduser()
    here = [candidate for candidate in (folder, folder / POLICY_FOLDER) if (candidate / POLICY_FILE).is_file()]
    place = here[0] if here else find_checkpoint(folder) / POLICY_FOLDER
    policy = Policy.load(place, backend)
    policy.feeders = _feeders_of_run(place)
    return policy


def _feeders_of_run(policy_folder: Path) -> dict[str, str]:
    """Read from the manifest of a policy's run which feeders it was trained on; nothing where there is none."""
    for folder in policy_folder.resolve().parents[:3]:
        try:
            digests = json.loads((folder / MANIFEST).read_text())["digests"]
            return dict(digests.get("feeders") or {"feeder": digests["feeder"]})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return {}


def _first(action: Any) -> Any:
    return {name: _first(part) for name, part in action.items()} if isinstance(action, dict) else action[0]


def _describe(space: gym.Space[Any]) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Dict):
        return {"kind": "Dict", "spaces": [[name, _describe(part)] for name, part in space.spaces.items()]}
    if isinstance(space, gym.spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist()}
    if isinstance(space, gym.spaces.Box):
        return {"kind": "Box", "low": space.low.tolist(), "high": space.high.tolist(), "dtype": str(space.dtype)}
    raise PowerGridError(f"action space {space} is not supported")


def _describe_fit(fit: AgentFit) -> dict[str, Any]:
    numbers = {name: getattr(fit, name) for name in ("own_width", "width", "place", "places", "flat")}
    return {**numbers, "own_space": _describe(fit.own_space)}


def _restore_fit(described: Mapping[str, Any], action_space: gym.Space[Any]) -> AgentFit:
    return AgentFit(**{**described, "own_space": _restore(described["own_space"])}, action_space=action_space)


def _restore(described: Mapping[str, Any]) -> gym.Space[Any]:
    kind = described["kind"]
    if kind == "Dict":
        return gym.spaces.Dict({name: _restore(part) for name, part in described["spaces"]})
    if kind == "Discrete":
        return gym.spaces.Discrete(described["n"], start=described["start"])
    if kind == "MultiDiscrete":
        return gym.spaces.MultiDiscrete(described["nvec"])
    dtype = np.dtype(described["dtype"])
    return gym.spaces.Box(np.array(described["low"], dtype), np.array(described["high"], dtype), dtype=dtype.type)
