"""Use a trained policy without Ray and without torch; it trains nothing and never unpickles.

A policy is a folder of ``policy.json`` (agents, networks, action spaces) and ``weights.npz`` (arrays,
read with ``allow_pickle=False``). The forward pass is numpy; what it gives is checked against
RLlib's own when the policy is written. With torch instead, it is RLlib's own, bit for bit.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from powergrid.errors import PowerGridError, ScenarioError, describe_unknown
from powergrid.files import make_folder, path_of, read_arrays, read_json, reason_of, replacing, telling, write_whole
from powergrid.training.policies.memory import GatedMemory
from powergrid.training.policies.messages import MessagePassing
from powergrid.training.policies.positions import ProposedMeans, StandingPositions
from powergrid.training.policies.spaces import AgentFit
from powergrid.training.policies.stored import StoredPolicy, describe_space, take_filter, take_layers
from powergrid.training.runs.checkpoints import POLICY_FOLDER, find_checkpoint
from powergrid.training.runs.settings import dump_settings, settings_of_run

FloatArray = NDArray[np.float32]
POLICY_FILE = "policy.json"
MANIFEST, SCENARIO = "run.json", "scenario.yaml"
WEIGHTS_FILE = "weights.npz"

Backend = Literal["numpy", "torch"]

#: What a network may have beside its layers, by the names in ``policy.json``.
_PARTS = {"standing": "standing", "graphs": "graph", "proposed": "proposed", "memories": "memory"}

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
    """A perceptron from observation to the inputs of the action distribution, behind messages or with a memory too."""

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    activations: tuple[str, ...]
    standing: StandingPositions | None = None  # where it tells positions from where devices stand
    graph: MessagePassing | None = None  # where its first layers are those of messages over a graph
    proposed: ProposedMeans | None = None  # where it adds to what rules propose
    memory: GatedMemory | None = None  # where it remembers, between which of its layers

    @property
    def width(self) -> int:
        """How many entries an observation has."""
        return self.graph.inputs if self.graph else self.weights[0].shape[1]

    @property
    def inputs(self) -> int:
        """How many inputs of the distribution it gives."""
        return self.standing.width if self.standing else len(self.biases[-1])

    def forward(self, observations: FloatArray, held: FloatArray | None = None) -> FloatArray:
        """Return the distribution's inputs, shape (n, outputs).

        Args:
            observations: Shape (n, inputs).
            held: What is remembered, where there is a memory, shape (n, width of the memory); written: what is
                remembered after. If None, an episode starts with each observation.
        """
        layers = [partial(self._layer, i) for i in range(len(self.weights))]
        x = observations
        if self.memory:
            x, after = self.memory.pass_on(x, self.start(len(x)) if held is None else held, layers)
            _keep(held, after)
        elif self.graph:
            x = self.graph.pass_messages(observations, layers)
        else:
            for layer in layers:
                x = layer(x)
        given: FloatArray = self.place(x, observations)
        return given

    def start(self, count: int) -> FloatArray | None:
        """Return what is remembered at the start of so many episodes, shape (count, width of the memory), or None."""
        return np.zeros((count, self.memory.width), np.float32) if self.memory else None

    def place(self, outputs: Any, observations: Any, lib: Any = np) -> Any:
        """Return the distribution's inputs that the last layer's outputs stand for, in arrays of numpy or of torch."""
        for each in (self.standing, self.proposed):
            outputs = each.place(outputs, observations, lib) if each else outputs
        return outputs

    def _layer(self, i: int, x: FloatArray) -> FloatArray:
        given: FloatArray = ACTIVATIONS[self.activations[i]](x @ self.weights[i].T + self.biases[i])
        return given

    def torch_module(self) -> Any:
        """Return the same as layers of torch."""
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
        module: Any = torch.nn.Sequential(*layers).eval().requires_grad_(False)
        place, graph, memory = self.place, self.graph, self.memory
        if all(each is None for each in (self.standing, graph, self.proposed, memory)):
            return module

        class Placed(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = module

            def forward(self, observations: Any, held: Any = None) -> Any:
                if memory:
                    x, after = memory.pass_on(observations, held, paired(self.layers), torch)
                    return place(x, observations, torch), after
                x = graph.pass_messages(observations, paired(self.layers), torch) if graph else module(observations)
                return place(x, observations, torch)

        return Placed().eval()


def paired(layers: Any) -> list[Callable[[Any], Any]]:
    """Return layers of torch, each followed by its activation, as a function for each two."""
    return [partial(_both, one, other) for one, other in zip(layers[::2], layers[1::2], strict=True)]


def _both(one: Any, other: Any, x: Any) -> Any:
    return other(one(x))


def _keep(held: FloatArray | None, after: FloatArray) -> None:
    if held is not None:
        held[:] = after


@dataclass(frozen=True)
class TorchNetwork(Network):
    """The same, computed as RLlib computes it."""

    @cached_property
    def _module(self) -> Any:
        return self.torch_module()

    def forward(self, observations: FloatArray, held: FloatArray | None = None) -> FloatArray:
        """Return the distribution's inputs, bit for bit those of RLlib's module on the same batch."""
        import torch

        seen = torch.from_numpy(np.ascontiguousarray(observations))
        if not self.memory:
            outputs: FloatArray = self._module(seen).numpy()
            return outputs
        start = self.start(len(observations)) if held is None else held
        given, after = self._module(seen, torch.tensor(start))
        _keep(held, after.numpy())
        return np.asarray(given)


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
    """Act for every agent the way the trained networks do without exploration.

    One whose networks remember goes by what it was shown since :meth:`reset`: it plays one environment, and a copy of
    it another.
    """

    networks: dict[str, Network]
    policy_of: dict[str, str]  # the name of each agent's policy
    action_spaces: dict[str, gym.Space[Any]]  # of each agent's policy
    normalize_actions: bool = field(default=True, kw_only=True)  # networks give [-1, 1] for the bounds of a Box
    clip_actions: bool = field(default=False, kw_only=True)  # where they do not: whether to clip to the bounds
    filters: dict[str, ObservationFilter] = field(default_factory=dict, kw_only=True)  # by agent
    fits: dict[str, AgentFit] = field(default_factory=dict, kw_only=True)  # of agents whose own spaces differ
    # of the run that it is of, where it is of one: digests of what it was trained on, and the file that says it whole
    digests: dict[str, Any] = field(default_factory=dict, init=False)
    trained_scenario: Path | None = field(default=None, init=False)
    # the seed of its training, and all else that decides what it comes to: alike where only seeds differ
    seed: int | None = field(default=None, init=False)
    trained_as: str = field(default="", init=False)
    _held: dict[str, FloatArray] = field(default_factory=dict, init=False)  # what is remembered, by agent

    @property
    def remembers(self) -> bool:
        """Whether it goes by what it saw before, so that it has to be told when an episode starts."""
        return any(network.memory for network in self.networks.values())

    def reset(self, *told: Any) -> None:
        """Forget what was seen: an episode starts. What is told of it changes nothing."""
        self._held.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> Policy:
        own = copy.copy(self)  # networks are only read
        own._held = {agent: held.copy() for agent, held in self._held.items()}
        return own

    @property
    def feeders(self) -> dict[str, str]:
        """Digests of the feeders that it was trained on by their names, empty where they are not known."""
        return self.digests.get("feeders") or ({"feeder": self.digests["feeder"]} if "feeder" in self.digests else {})

    @property
    def spaces(self) -> dict[str, tuple[int, gym.Space[Any]]]:
        """How many numbers each agent observes, and the space of its actions, by agent."""
        return {
            agent: (fit.own_width, fit.own_space)
            if (fit := self.fits.get(agent))
            else (self.networks[name].width, self.action_spaces[agent])
            for agent, name in self.policy_of.items()
        }

    def act(self, observations: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Return each observed agent's action, deterministic and ready for ``env.step``."""
        actions = {}
        for agent, seen in observations.items():
            held = self._held.get(agent)
            if held is None and agent in self.policy_of:
                held = self.start(agent, 1)
                if held is not None:
                    self._held[agent] = held
            actions[agent] = _first(self.act_batch(agent, np.asarray(seen, np.float32)[None], held))
        return actions

    def start(self, agent: str, count: int) -> FloatArray | None:
        """Return what an agent remembers at the start of so many episodes, shape (count, width); None: nothing ever."""
        return self.networks[self.policy_of[agent]].start(count)

    def act_batch(self, agent: str, observations: NDArray[Any], held: FloatArray | None = None) -> Any:
        """Return one agent's actions for many observations at once.

        Args:
            agent: The agent's name.
            observations: Shape (n, width).
            held: What it remembers in each of n environments, as :meth:`start` returns it first; written: what it
                remembers after. If None, an episode starts with each observation.

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
        width = fit.own_width if fit else network.width
        if batch.ndim != 2 or batch.shape[1] != width:
            remedy = "; it adds to what rules propose, which proposals='rule_based' shows" if network.proposed else ""
            raise PowerGridError(
                f"agent {agent!r}: observations of shape {batch.shape}; the policy was trained on (n, {width}){remedy}"
            )
        forward = partial(network.forward, held=held)
        actions = self.decide(agent, fit.observe(batch) if fit else batch, forward)
        return fit.act(actions) if fit else actions

    def decide(self, agent: str, observations: Any, forward: Callable[[Any], Any], lib: Any = np) -> Any:
        """Return what an agent's policy does, before it is fitted to the agent's own spaces.

        Args:
            agent: The agent's name.
            observations: Shape (n, width), of numpy or of torch.
            forward: Its network.
            lib: ``numpy``, or ``torch``, whose operations an export writes down.
        """
        space, network = self.action_spaces[agent], self.networks[self.policy_of[agent]]
        outputs = forward(self.filters[agent](observations, lib) if agent in self.filters else observations)
        outputs = network.proposed.settle(outputs, observations, lib) if network.proposed else outputs
        given = network.inputs
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
        make_folder(folder)
        arrays: dict[str, NDArray[Any]] = {}
        for name, network in self.networks.items():
            for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
                arrays[f"{name}/{i}/weight"], arrays[f"{name}/{i}/bias"] = weight, bias
        for agent, each in self.filters.items():
            arrays[f"filter/{agent}/mean"], arrays[f"filter/{agent}/divisor"] = each.mean, each.divisor
        with telling(folder / WEIGHTS_FILE), replacing(folder / WEIGHTS_FILE) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
        parts = {
            key: {name: part.describe() for name, net in self.networks.items() if (part := getattr(net, one))}
            for key, one in _PARTS.items()
        }
        # readers of earlier formats know nothing of what came later, in this order
        band = any(net.proposed and net.proposed.deadband for net in self.networks.values())
        later = [band, *(parts[key] for key in ("memories", "proposed", "graphs", "standing")), self.fits, self.filters]
        described = {
            "format": next((8 - i for i, there in enumerate(later) if there), 1),
            "policy_of": self.policy_of,
            "networks": {name: list(network.activations) for name, network in self.networks.items()},
            "action_spaces": {agent: describe_space(space) for agent, space in self.action_spaces.items()},
            "normalize_actions": self.normalize_actions,
            "clip_actions": self.clip_actions,
            "filters": {agent: each.clip for agent, each in self.filters.items()},
            "fits": {agent: _describe_fit(fit) for agent, fit in self.fits.items()},
            **{key: own for key, own in parts.items() if own},
        }
        write_whole(folder / POLICY_FILE, json.dumps(described, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, backend: Backend = "numpy") -> Policy:
        """Read what :meth:`save` wrote.

        Raises:
            PowerGridError: A file is missing or damaged, a number is not finite, or parts do not fit each other.
        """
        if backend not in ("numpy", "torch"):
            raise PowerGridError(describe_unknown("backend", backend, ["numpy", "torch"]))
        kind = TorchNetwork if backend == "torch" else Network
        stored, arrays = read_json(folder / POLICY_FILE, StoredPolicy), read_arrays(folder / WEIGHTS_FILE)
        try:
            networks = {}
            for name, activations in stored.networks.items():
                graph = stored.graphs[name].restore() if name in stored.graphs else None
                memory = stored.memories[name].restore() if name in stored.memories else None
                weights, biases = take_layers(arrays, name, len(activations), graph, memory)
                inputs = graph.inputs if graph else weights[0].shape[1]
                standing = stored.standing[name].restore(weights, inputs) if name in stored.standing else None
                proposed = stored.proposed[name].restore(inputs) if name in stored.proposed else None
                layers = tuple(weights), tuple(biases), tuple(activations)
                networks[name] = kind(*layers, standing, graph, proposed, memory)
            spaces = {agent: space.restore() for agent, space in stored.action_spaces.items()}
            widths = {agent: networks[name].width for agent, name in stored.policy_of.items()}
            filters = {
                agent: ObservationFilter(*take_filter(arrays, agent, widths[agent]), clip)
                for agent, clip in stored.filters.items()
            }
            policy = cls(
                networks, stored.policy_of, spaces, normalize_actions=stored.normalize_actions,
                clip_actions=stored.clip_actions, filters=filters,
                fits={agent: fit.restore(spaces[agent]) for agent, fit in stored.fits.items()},
            )  # fmt: skip
            policy._require_sound()
        except (ValueError, LookupError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
            raise PowerGridError(f"{folder}: no policy that can be read: {reason_of(error)}") from error
        return policy

    def _require_sound(self) -> None:
        """Act once for each agent; a ValueError says where networks, spaces and fits do not go together."""
        for agent, (width, _) in self.spaces.items():
            with np.errstate(all="ignore"):
                action = self.act_batch(agent, np.zeros((1, width), np.float32))
            if not all(np.isfinite(part).all() for part in (action.values() if isinstance(action, dict) else [action])):
                raise ValueError(f"agent {agent!r}: its action is not finite")


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
    folder = path_of(run_or_checkpoint)
    here = [candidate for candidate in (folder, folder / POLICY_FOLDER) if (candidate / POLICY_FILE).is_file()]
    place = here[0] if here else find_checkpoint(folder) / POLICY_FOLDER
    policy = Policy.load(place, backend)
    for each in place.resolve().parents[:3]:
        if (each / MANIFEST).is_file():
            with suppress(PowerGridError):  # it acts as well where nobody can read any more what it was trained on
                told = read_json(each / MANIFEST, _Run)
                policy.digests = told.digests.model_dump()
                policy.seed, policy.trained_as = told.seed, told.without_seed()
                policy.trained_scenario = each / SCENARIO if (each / SCENARIO).is_file() else None
                break
    return policy


class _Feeders(BaseModel):
    scenario: str = ""
    feeder: str
    profiles: str | None = None
    feeders: dict[str, str] = {}


class _Run(BaseModel):
    env: str = ""
    algorithm: str = ""
    policies: dict[str, str] = {}
    settings: dict[str, Any] = {}
    digests: _Feeders

    @property
    def seed(self) -> int | None:
        """The seed of the training."""
        seed = self.settings.get("seed")
        return seed if isinstance(seed, int) else None

    def without_seed(self) -> str:
        """Return what decides a training besides its seed."""
        facts = self.model_dump()
        with suppress(ScenarioError):  # a run from before a setting was known was trained with its default
            facts["settings"] = dump_settings(settings_of_run(self.algorithm, self.settings))
        facts["settings"].pop("seed", None)
        return json.dumps(facts, sort_keys=True, default=str)


def _first(action: Any) -> Any:
    return {name: _first(part) for name, part in action.items()} if isinstance(action, dict) else action[0]


def _describe_fit(fit: AgentFit) -> dict[str, Any]:
    numbers = {name: getattr(fit, name) for name in ("own_width", "width", "place", "places", "flat")}
    return {**numbers, "own_space": describe_space(fit.own_space)}
