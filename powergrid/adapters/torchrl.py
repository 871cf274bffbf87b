"""TorchRL's EnvBase on environments that are stepped in lockstep, several agents or one; and policies of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict, TensorDictBase, unravel_key
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, check_marl_grouping, set_exploration_type

import powergrid
from powergrid.adapters import FilePolicy, require_free
from powergrid.envs.agents import ActionForm, CentralActions
from powergrid.envs.backends import BackendName
from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError, ScenarioError, describe_unknown, show_briefly
from powergrid.files import reason_of
from powergrid.scenario import Scenario

_EnvBase: Any = EnvBase  # published without types

Groups = Mapping[str, Sequence[str]]

_FLAGS = ("done", "terminated", "truncated")


class TorchGridEnv(_EnvBase):  # type: ignore[misc]
    """Play a scenario in several environments at once, as tensors; ``batch_size`` is ``[num_envs]``.

    Agents stand in groups, as TorchRL's and BenchMARL's multi-agent parts want them: ``(group, "observation")`` of
    shape (num_envs, n_agents, n), ``(group, "action")`` and ``(group, "reward")`` alike, ``done``, ``terminated`` and
    ``truncated`` of each and at the root. With ``view="central"`` there is no group. An agent with numbers and
    positions acts by numbers alone, those of positions read in as many equal parts of -1..1. With ``action_masks:
    observations`` those who act by positions have ``action_mask`` beside ``observation``, as ``ActionMask`` takes it.
    Environments that are over wait for ``reset`` with ``_reset``, as TorchRL's collectors do.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, the data itself, or a scenario.
        num_envs: Number of environments.
        view: ``agents``, or ``central`` for one controller of all devices.
        groups: Names of agents by group, each of agents with the same spaces; by default one group ``agents``, or,
            where spaces differ, one for each kind of them.
        device: Where tensors are.
        backend: Where environments are played: ``inline``, or ``processes`` in ``workers`` of them.
        workers: Number of processes; None takes one for each processor.
        overrides: Scenario fields to change, for example ``split="test"``; and, with ``view="central"``, ``actions``
            and ``levels`` of ``powergrid.make_central``.

    Attributes:
        envs: The arrays below: a ``GridVectorEnv`` or a ``CentralVectorEnv``.
        group_map: Names of agents by group.

    Raises:
        ScenarioError: with every problem of the settings.
        FeederError: the feeder does not compile or solve.
    """

    def __init__(
        self,
        scenario: str | Path | Mapping[str, Any] | Scenario,
        num_envs: int = 1,
        *,
        view: Literal["agents", "central"] = "agents",
        groups: Groups | None = None,
        device: torch.device | str = "cpu",
        backend: BackendName = "inline",
        workers: int | None = None,
        **overrides: Any,
    ) -> None:
        require_free(overrides, "TorchGridEnv", ("autoreset_mode",))
        if groups is not None and view == "central":
            raise ScenarioError("TorchGridEnv", ["groups are of agents; leave them out, or choose view='agents'"])
        place, make = torch.device(device), powergrid.make_vector
        keys: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED, **overrides}
        envs: Any = make(scenario, num_envs, view=view, backend=backend, workers=workers, **keys)
        super().__init__(device=place, batch_size=torch.Size([num_envs]))
        self.envs, self.is_closed = envs, False  # TorchRL takes for closed what does not say that it is not
        try:
            self._open(view, groups)
        except BaseException:
            self.close()
            raise

    def _open(self, view: str, groups: Groups | None) -> None:
        """Find out who acts, and make the specs."""
        envs, self._agents = self.envs, dict[str, _Agent]()
        if view == "agents":
            self._agents = {
                name: _Agent(i, envs.single_observation_space[name], envs.single_action_space[name])
                for i, name in enumerate(envs.possible_agents)
            }
            self.group_map = _find_groups(self._agents) if groups is None else _check_groups(groups, self._agents)
        else:
            self.group_map = {}
            self._controller = _Agent(0, envs.single_observation_space, envs.single_action_space)
        self._seed: int | None = None
        self._make_specs()

    def _make_specs(self) -> None:
        batch = self.batch_size
        if self._agents:
            shapes = {group: (*batch, len(names)) for group, names in self.group_map.items()}
            own = {g: self._agents[self.group_map[g][0]].specs(shape, self.device) for g, shape in shapes.items()}
            parts = {
                part: Composite(
                    {g: Composite(_take(own[g], part), shape=shapes[g], device=self.device) for g in own}, shape=batch
                )
                for part in ("observation", "action", "reward")
            }
        else:
            specs = self._controller.specs(tuple(batch), self.device)
            parts = {part: Composite(_take(specs, part), shape=batch) for part in ("observation", "action", "reward")}
        self.observation_spec, self.action_spec = parts["observation"], parts["action"]
        self.reward_spec = parts["reward"]
        ends = {group: self._flags((*batch, len(names))) for group, names in self.group_map.items()}
        self.done_spec = Composite({**dict(self._flags(tuple(batch)).items()), **ends}, shape=batch, device=self.device)

    def _flags(self, shape: tuple[int, ...]) -> Any:
        flag = Categorical(2, shape=(*shape, 1), dtype=torch.bool, device=self.device)
        return Composite({name: flag.clone() for name in _FLAGS}, shape=shape, device=self.device)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        options, none = {}, torch.zeros((*self.batch_size, 1), dtype=torch.bool, device=self.device)
        if tensordict is not None and tensordict.get("_reset", None) is not None:
            options["reset_mask"] = tensordict["_reset"].reshape(self.batch_size).detach().cpu().numpy()
        options |= {key: value for key, value in kwargs.items() if value is not None}
        observations, _ = self.envs.reset(seed=self._seed, options=options or None)
        self._seed = None
        return self._tell(self._seen(observations), dict.fromkeys(_FLAGS, none))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self._agents:
            actions: Any = {}
            for group, names in self.group_map.items():
                chosen = tensordict[group, "action"].detach().cpu().numpy()
                actions |= {name: self._agents[name].read(chosen[:, i]) for i, name in enumerate(names)}
        else:
            actions = self._controller.read(tensordict["action"].detach().cpu().numpy())
        observations, rewards, terminated, truncated, _ = self.envs.step(actions)
        seen = self._seen(observations)
        earned = self._tensor(rewards.astype(np.float32)).unsqueeze(-1)
        if self._agents:
            for group, names in self.group_map.items():
                seen[group]["reward"] = earned[:, [self._agents[name].place for name in names]]
        else:
            seen["reward"] = earned
        flags = {"done": terminated | truncated, "terminated": terminated, "truncated": truncated}
        return self._tell(seen, {name: self._tensor(flag).unsqueeze(-1) for name, flag in flags.items()})

    def _tell(self, seen: dict[str, Any], flags: Mapping[str, torch.Tensor]) -> TensorDictBase:
        """Return what is seen with the flags, of the whole and of every agent."""
        for group, names in self.group_map.items():
            for name, flag in flags.items():
                seen[group][name] = flag.unsqueeze(1).repeat(1, len(names), 1)
        own = {name: flag.clone() for name, flag in flags.items()}
        return TensorDict({**seen, **own}, self.batch_size, device=self.device)

    def _set_seed(self, seed: int | None) -> None:
        self._seed = seed

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Release engines and workers."""
        self.envs.close()
        super().close(raise_if_closed=raise_if_closed)

    def _seen(self, observations: Any) -> dict[str, Any]:
        if not self._agents:
            return {key: self._tensor(part) for key, part in self._controller.look(observations).items()}
        seen = {name: agent.look(observations[name]) for name, agent in self._agents.items()}
        return {
            group: TensorDict(
                {key: self._tensor(np.stack([seen[name][key] for name in names], axis=1)) for key in seen[names[0]]},
                (*self.batch_size, len(names)),
                device=self.device,
            )
            for group, names in self.group_map.items()
        }

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


class _Agent:
    """Specs of an agent, and its actions as our environments take them.

    Args:
        place: Its place among the agents.
        observed: Its observation space, with a mask of its positions or without.
        action: Its action space; of a Dict all is one row of numbers.

    Attributes:
        n_observed: How many numbers it sees.
        n_masked: Length of a mask of its actions, 0 where it does not act by positions.
    """

    def __init__(self, place: int, observed: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.place, self.key = place, (repr(observed), repr(action))
        parts = observed.spaces if isinstance(observed, spaces.Dict) else {"observations": observed}
        self.n_observed, self._action = spaces.flatdim(parts["observations"]), action
        self.n_masked = spaces.flatdim(action) if isinstance(action, spaces.Discrete | spaces.MultiDiscrete) else 0
        self._masked = "action_mask" in parts and self.n_masked > 0

    def specs(self, shape: tuple[int, ...], device: Any) -> dict[str, Any]:
        """Return the specs of observation, action, reward and of a mask for many of it, shape (*shape, n)."""
        mask = {"action_mask": Binary(self.n_masked, shape=(*shape, self.n_masked), device=device, dtype=torch.bool)}
        return {
            **(mask if self._masked else {}),
            "observation": Bounded(-1.0, 1.0, (*shape, self.n_observed), device=device, dtype=torch.float32),
            "action": self._action_spec(shape, device),
            "reward": Unbounded((*shape, 1), device=device, dtype=torch.float32),
        }

    def _action_spec(self, shape: tuple[int, ...], device: Any) -> Any:
        if isinstance(self._action, spaces.Discrete):
            return Categorical(int(self._action.n), shape=shape, device=device, dtype=torch.int64)
        if isinstance(self._action, spaces.MultiDiscrete):
            sizes = torch.as_tensor(self._action.nvec)
            return MultiCategorical(sizes, shape=(*shape, len(sizes)), device=device, dtype=torch.int64)
        both = isinstance(self._action, spaces.Dict)
        n = self._n_numbers + len(self._sizes) if both else spaces.flatdim(self._action)
        return Bounded(-1.0, 1.0, (*shape, n), device=device, dtype=torch.float32)

    def look(self, observed: Any) -> dict[str, npt.NDArray[Any]]:
        """Return what it sees by key."""
        seen = {"observation": observed["observations"] if isinstance(observed, dict) else observed}
        return seen | ({"action_mask": observed["action_mask"].astype(bool)} if self._masked else {})

    def read(self, chosen: npt.NDArray[Any]) -> Any:
        """Return actions as in the agent's own space, environments first."""
        if not isinstance(self._action, spaces.Dict):
            return chosen
        numbers, rest = chosen[:, : self._n_numbers], np.clip(chosen[:, self._n_numbers :], -1.0, 1.0)
        positions = np.minimum((rest + 1.0) / 2.0 * self._sizes, self._sizes - 1).astype(np.int64)
        return {"continuous": numbers, "discrete": positions}

    @property
    def _n_numbers(self) -> int:
        return spaces.flatdim(self._action["continuous"])  # type: ignore[index]

    @property
    def _sizes(self) -> npt.NDArray[np.int64]:
        return np.asarray(self._action["discrete"].nvec)  # type: ignore[index]


class TorchPolicy(FilePolicy):
    """Act as a module that TorchRL has trained, saved whole by ``torch.save``.

    Args:
        file: The file.

    Raises:
        PowerGridError: It holds no module that reads and writes tensordicts.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        try:
            self._module = torch.load(file, map_location="cpu", weights_only=False)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # of a file that may be anything, by code that may do anything
            raise PowerGridError(f"{file}: torch cannot load it: {reason_of(error)}") from error
        if not hasattr(self._module, "in_keys"):
            remedy = "save the actor whole, torch.save(actor, file), or name a class of your own, file.py:Class"
            kind = "weights alone" if isinstance(self._module, Mapping) else f"a {type(self._module).__name__}"
            raise PowerGridError(f"{file}: holds {kind}, and no module that reads tensordicts: {remedy}")
        self._module.eval()
        self._reads = {unravel_key(key) for key in self._module.in_keys}
        self.view = "central" if "observation" in self._reads else "agents"
        self.masked = any("action_mask" in (key, key[-1]) for key in self._reads)
        self.form: tuple[ActionForm, int] = "auto", 33
        self._agents: dict[str, _Agent] = {}
        self._groups: dict[str, list[str]] = {}

    def fit(self, task: GridTask, width: Any) -> list[str]:
        """Find the groups of its agents, or the form of a controller's actions, and say what does not fit."""
        if self.view == "agents":
            widths = {agent.name: len(agent.observed) for agent in task.agents} | (width or {})
            seen = {name: spaces.Box(-1.0, 1.0, (n,), np.float32) for name, n in widths.items()}
            self._agents = {a.name: _Agent(i, seen[a.name], a.action_space) for i, a in enumerate(task.agents)}
            self._groups = _find_groups(self._agents)
            return self._try()
        whole, self._groups = spaces.Box(-1.0, 1.0, (width or 0,), np.float32), {"": [""]}
        problems = list[str]()
        for form in self._find_forms(task):
            self.form, self._agents = form, {"": _Agent(0, whole, CentralActions(task.agents, *form).space)}
            if not (problems := self._try()):
                break
        return problems

    def _find_forms(self, task: GridTask) -> list[tuple[ActionForm, int]]:
        """Return the forms that a controller's actions may have; levels are what the module's own spec says."""
        spec = getattr(self._module, "spec", None)
        sizes = getattr(spec.get("action", None), "nvec", None) if isinstance(spec, Composite) else None
        if sizes is None:
            return [("auto", 33), ("multidiscrete", 33)] if self.masked else [("auto", 33)]
        own = np.asarray(sizes).reshape(-1, sizes.shape[-1])[0].tolist()
        there = {n: CentralActions(task.agents, "multidiscrete", n).space for n in sorted({*own} - {1})}
        levels = [n for n, space in there.items() if space == spaces.MultiDiscrete(own)]
        return [("multidiscrete", levels[0])] if levels else [("auto", 33)]

    def _try(self) -> list[str]:
        """Let it act once on nothing but zeros, and say what does not fit."""
        of = {group: self._agents[names[0]] for group, names in self._groups.items()}
        there = {_key_of(group, "observation") for group in of}
        there |= {_key_of(group, "action_mask") for group, agent in of.items() if agent.n_masked}
        if not self._reads <= there:
            return [f"reads {_say_keys(self._reads - there)}; here are {_say_keys(there)}"]
        try:
            acted = self._run(
                {name: np.zeros(agent.n_observed, np.float32) for name, agent in self._agents.items()},
                {name: np.ones(agent.n_masked, bool) for name, agent in self._agents.items()},
            )
        except Exception as error:  # noqa: BLE001 (a module of anybody's, of other widths as a rule)
            widths = sorted({agent.n_observed for agent in of.values()})
            return [f"fails on observations of {widths}: {reason_of(error)}"]
        problems = []
        for group, names in self._groups.items():
            spec = of[group].specs((1, len(names)), "cpu")["action"]
            if acted[group].shape != spec.shape or acted[group].dtype.is_floating_point != spec.dtype.is_floating_point:
                told = [_say_actions(each) for each in (spec, acted[group])]
                remedy = (
                    ""
                    if group or acted[group].dtype.is_floating_point
                    else ", of which its spec has to tell how many there are"
                )
                problems.append(f"{group or 'the controller'} acts by {told[0]} here; the policy by {told[1]}{remedy}")
        return problems

    def act(self, observations: Any, masks: Any = None) -> Any:
        """Return actions without exploration, by agent, or of one controller."""
        central = self.view == "central"
        acted = self._run({"": observations} if central else observations, {"": masks} if central else masks)
        actions = {}
        for group, names in self._groups.items():
            for i, name in enumerate(names):
                read = self._agents[name].read(acted[group][:, i].numpy())
                actions[name] = {key: part[0] for key, part in read.items()} if isinstance(read, dict) else read[0]
        return actions[""] if central else actions

    def _run(
        self, observations: Mapping[str, npt.NDArray[Any]], masks: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, torch.Tensor]:
        """Return the actions of each group, shape (1, n_agents, n)."""
        seen = TensorDict({}, [1])
        for group, names in self._groups.items():
            for key, own in (("observation", observations), ("action_mask", masks)):
                if key == "observation" or _key_of(group, key) in self._reads:
                    rows = torch.from_numpy(np.stack([own[name] for name in names])[None])
                    seen[_key_of(group, key)] = rows if group else rows[:, 0]
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            acted = self._module(seen)
        found = {group: acted[_key_of(group, "action")] for group in self._groups}
        return {group: each if group else each.unsqueeze(1) for group, each in found.items()}


def _take(specs: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the specs of a part, a mask with those of observations."""
    own = (part, "action_mask") if part == "observation" else (part,)
    return {key: specs[key] for key in own if key in specs}


def _key_of(group: str, key: str) -> Any:
    return (group, key) if group else key


def _say_actions(of: Any) -> str:
    return f"{tuple(of.shape[1:])} {'numbers' if of.dtype.is_floating_point else 'positions'}"


def _say_keys(keys: Iterable[Any]) -> str:
    return " and ".join(sorted(map(repr, keys)))


def _find_groups(agents: Mapping[str, _Agent]) -> dict[str, list[str]]:
    """Return one group of all agents, or, where their spaces differ, one for each kind of them."""
    alike: dict[Any, list[str]] = {}
    for name, agent in agents.items():
        alike.setdefault(agent.key, []).append(name)
    if len(alike) == 1:
        return {"agents": list(agents)}
    return {names[0] if len(names) == 1 else f"agents_{i}": names for i, names in enumerate(alike.values())}


def _check_groups(groups: Groups, agents: Mapping[str, _Agent]) -> dict[str, list[str]]:
    """Return groups that hold every agent once, those of a group alike."""
    if not isinstance(groups, Mapping):
        raise ScenarioError("groups", [f"names of agents by group, as {{'agents': [...]}}, not {show_briefly(groups)}"])
    found = {group: [names] if isinstance(names, str) else list(names) for group, names in groups.items()}
    given = [name for names in found.values() for name in names]
    problems = [describe_unknown("agent", name, agents) for name in given if name not in agents]
    problems += [f"agent {name!r} is in {given.count(name)} groups" for name in agents if given.count(name) != 1]
    for group, names in found.items():
        if len({agents[name].key for name in names if name in agents}) > 1:
            problems.append(f"{group}: {', '.join(names)} have different spaces; give each kind a group of its own")
    if problems:
        raise ScenarioError("groups", problems)
    check_marl_grouping(found, list(agents))
    return found
