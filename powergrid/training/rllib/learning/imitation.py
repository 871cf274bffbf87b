"""Policies that begin as an imitation: days that somebody played, cloned into the networks before PPO learns on.

What is imitated comes from a folder of :mod:`powergrid.scenario.demonstrations`, or is played by
:mod:`powergrid.rules` now. It is plain supervised learning in torch on copies of the algorithm's modules, whose weights
then go back by RLlib's documented doors.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns

from powergrid.envs.agents import ActionWriter
from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.rules import PLAYED
from powergrid.scenario import scenario_from_config
from powergrid.scenario.demonstrations import Demonstrations, Kept, digest_of_play, read_demonstrations, require_same
from powergrid.training.policies.spaces import FIT_KEY
from powergrid.training.rllib.modules import JOINT_OBSERVATION, CentralCriticModule, PolicyActor
from powergrid.training.rllib.planning.problems import SEVERAL_FEEDERS
from powergrid.training.rllib.sampling.hard_days import play_days

logger = logging.getLogger("powergrid.training")

FloatArray = NDArray[np.float64]

#: Days that are played at once, rows of a step of learning, and learning rate at first and at last.
_AT_ONCE, _ROWS, _LR, _LR_END = 16, 512, 1e-3, 1e-4
#: A continuous action at its bound this nearly is there: to ask for more than that is the same.
_AT_BOUND = 1e-3
#: In what time a battery is led back to the charge that was shown [h]: at once would be full power for every kWh.
_BACK_WITHIN_H = 2.0


@dataclass(frozen=True)
class Imitated:
    """What an imitation came to.

    Attributes:
        days: Days that were imitated.
        shown: Mean reward of these days as they were shown, mean over agents.
        reached: The same of what the policies do on them, without exploration.
        errors: By policy, root of the mean squared error of continuous actions, of -1..1.
        missed: By policy, the share of positions that are others than what was right.
        explained: By policy, the share of the variance of returns that its critic explains.
    """

    days: int
    shown: float
    reached: float
    errors: Mapping[str, float]
    missed: Mapping[str, float]
    explained: Mapping[str, float]


def imitate(
    algorithm: Any, shown: str | Path, *, days: int = 200, rounds: int = 10, passes: int = 30, seed: int = 0
) -> Imitated:
    """Teach the policies of an algorithm to do what was shown, and their critics what that is worth.

    The policies first learn from the days as they were played. In each further round they play the same days by
    themselves, with exploration, and learn what would have been right where they then are: the actions that were shown
    at that step, with batteries led back to the charge that they had (Ross et al., A Reduction of Imitation Learning
    and Structured Prediction to No-Regret Online Learning, AISTATS 2011).

    Args:
        algorithm: An RLlib algorithm of PPO or MAPPO, just built from a configuration of this package.
        shown: A folder that ``powergrid demonstrate`` wrote, or ``rule_based``, whose days are played now.
        days: Days that are played now, spread evenly over those of the scenario's split.
        rounds: Rounds of learning; with one the policies never act themselves.
        passes: Passes over all that was seen in each round.
        seed: Seed of days' randomness in an order of rows.

    Raises:
        PowerGridError: The folder holds no demonstrations, or a file is damaged.
        ScenarioError: They are of other actions than the algorithm's scenario has, or its policies cannot imitate.
    """
    config = algorithm.config
    kept = None if shown in PLAYED else read_demonstrations(shown)
    _require_imitable(algorithm)
    modules: dict[str, Any] = next(iter(algorithm.learner_group.foreach_learner(_copy_modules))).get()
    scenario = scenario_from_config(config.env_config)
    with closing(GridTask(scenario, min(_AT_ONCE, days if kept is None else len(kept.days)))) as task:
        found = _play_baseline(task, str(shown), days, seed) if kept is None else _require_fitting(kept, task)
        school = _School(task, found, modules, config, np.random.default_rng(seed))
        left: dict[str, tuple[float, float]] = {}
        seen = [school.play_shown()]
        for turn in range(rounds):
            if turn:
                seen.append(school.play(explore=True))
            left = {name: school.clone(name, seen, passes) for name in modules}
        explained = school.value(passes)
        reached = school.play(explore=False).reward
    algorithm.learner_group.set_weights({name: module.get_state() for name, module in modules.items()})
    acting = {name: module.get_state(inference_only=True) for name, module in modules.items()}
    # not by sync_weights: the learner has counted no update, and a runner takes up none that it counts already
    algorithm.env_runner_group.foreach_env_runner(_TakeUp(acting))
    errors, missed = ({name: each[i] for name, each in left.items()} for i in (0, 1))
    return Imitated(len(found.days), seen[0].reward, reached, errors, missed, explained)


def _require_fitting(found: Demonstrations, task: GridTask) -> Demonstrations:
    """Refuse days whose actions are not a task's, and tell where they may not be the best of it."""
    scenario = task.scenario
    require_same(found, scenario, _name_actions(task), task.simulation.profiles.n_days)
    if digest_of_play(scenario) != found.kept.played:
        told = "%s was recorded on another form of %s: what is imitated may not be the best any more."
        logger.warning(told, found.folder, scenario.name)
    return found


def _name_actions(task: GridTask) -> list[str]:
    return [f"{spec.device}.{spec.name}" for spec in task.simulation.actions]


def _play_baseline(task: GridTask, name: str, count: int, seed: int) -> Demonstrations:
    """Play days of a task's split with a baseline, as many at once as it has environments; those that diverge are out.

    Raises:
        PowerGridError: Every day diverged.
    """
    there = task.simulation.days
    days = np.unique(there[np.linspace(0, len(there) - 1, min(count, len(there))).round().astype(np.int64)])
    played = list(play_days(task, PLAYED[name](), days, seed))
    sound = np.concatenate([part.sound for part in played])
    if not sound.any():
        raise PowerGridError(f"{task.scenario.name}: every day of {name} diverged; there is nothing to imitate")
    kept = Kept(
        scenario=task.scenario.name, played=digest_of_play(task.scenario), policy=name, seed=seed,
        actions=_name_actions(task), n_steps=task.scenario.episode_length,
    )  # fmt: skip
    actions = np.concatenate([part.actions for part in played])
    rewards = np.concatenate([part.rewards for part in played])
    return Demonstrations(Path(name), kept, days[sound], actions[sound], rewards[sound])


def _require_imitable(algorithm: Any) -> None:
    """Refuse policies that see or do something other than their agents, as those of unequal agents."""
    runner, problems = algorithm.env_runner, []
    if getattr(scenario_from_config(algorithm.config.env_config), "feeders", None):
        problems.append(SEVERAL_FEEDERS)
    if algorithm.config.env_config.get(FIT_KEY):
        problems.append("policies of agents with unequal spaces (share_unequal) cannot imitate; leave one out")
    pieces = algorithm.config.build_env_to_module_connector(env=runner.env, spaces=runner.get_spaces()).connectors
    if any(isinstance(piece, MeanStdFilter) for piece in pieces):
        problems.append("policies cannot imitate through a filter of observations (observation_filter); leave one out")
    if problems:
        raise ScenarioError("demonstrations", problems)


class _TakeUp:
    """Set a runner's modules to weights; unlike a lambda it pickles by name."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._weights = dict(weights)

    def __call__(self, runner: Any) -> None:
        runner.set_state({COMPONENT_RL_MODULE: self._weights})


def _copy_modules(learner: Any) -> dict[str, Any]:
    module = learner.module
    return {name: copy.deepcopy(module[name].unwrapped()).to("cpu") for name in module.keys()}  # noqa: SIM118


@dataclass(frozen=True)
class _Played:
    """Days side by side: what agents saw, what would have been right, and what they got.

    Attributes:
        seen: By agent, shape (n_days, n_steps, n_observed).
        right: Actions, shape (n_days, n_steps, n_actions).
        rewards: Shape (n_days, n_steps, n_agents).
    """

    seen: Mapping[str, NDArray[np.float32]]
    right: FloatArray
    rewards: FloatArray

    @property
    def reward(self) -> float:
        """Mean reward of a day, mean over agents."""
        return float(self.rewards.sum(axis=1).mean())


class _School:
    """Play the days that were shown, and learn from them.

    Args:
        task: The task that plays them.
        found: The days.
        modules: The policies' modules by name.
        config: The algorithm's configuration.
        rng: Orders rows.
    """

    def __init__(
        self, task: GridTask, found: Demonstrations, modules: Mapping[str, Any], config: Any, rng: np.random.Generator
    ) -> None:
        self._task, self._found, self._modules, self._rng = task, found, modules, rng
        self._gamma = float(config.gamma)
        self._writer = ActionWriter(task.agents, task.n_envs)
        self._policy_of = {agent.name: config.policy_mapping_fn(agent.name) for agent in task.agents}
        spaces = {agent.name: agent.action_space for agent in task.agents}
        self._agents_of = {n: [a for a, own in self._policy_of.items() if own == n] for n in modules}
        fitting = {"normalize": config.normalize_actions, "clip": config.clip_actions}
        self._actors = [
            PolicyActor(modules[name], agents, spaces[agents[0]], **fitting)
            for name, agents in self._agents_of.items()
            if agents
        ]
        self._spaces = {name: spaces[agents[0]] for name, agents in self._agents_of.items() if agents}
        self._batteries = _Batteries(task, found.kept.n_steps, len(found.days))

    # -- playing

    def play_shown(self) -> _Played:
        """Play the days as they were shown, and note the charge that batteries have then."""
        return self._play_all(lambda step, rows: self._found.actions[rows, step], notes=True)

    def play(self, *, explore: bool) -> _Played:
        """Play the days as the policies do."""

        def choose(step: int, rows: NDArray[np.int64]) -> FloatArray:
            seen = dict(zip(self._policy_of, self._task.observe(), strict=True))
            actions: dict[str, Any] = {}
            for actor in self._actors:
                told = actor.act(np.stack([seen[a] for a in actor.agents], axis=1), explore=explore, t=0)
                chosen = told[Columns.ACTIONS_FOR_ENV]
                actions |= {agent: _of_agent(chosen, i) for i, agent in enumerate(actor.agents)}
            out = self._task.action_buffer().copy()
            self._writer.write(actions, out)
            return out[: len(rows)]

        return self._play_all(choose, notes=False)

    def _play_all(self, choose: Any, *, notes: bool) -> _Played:
        n_days, n_envs = len(self._found.days), self._task.n_envs
        parts = [np.arange(i, min(i + n_envs, n_days)) for i in range(0, n_days, n_envs)]
        played = [self._play_part(rows, choose, notes=notes) for rows in parts]
        seen = {a: np.concatenate([part.seen[a] for part in played]) for a in self._policy_of}
        return _Played(
            seen, np.concatenate([p.right for p in played]), np.concatenate([p.rewards for p in played])
        )  # fmt: skip

    def _play_part(self, rows: NDArray[np.int64], choose: Any, *, notes: bool) -> _Played:
        task, found = self._task, self._found
        days = [int(day) for day in found.days[rows]]
        for env in range(task.n_envs):  # environments without a day of their own play the last one again
            day = days[min(env, len(days) - 1)]
            task.reset(env, np.random.default_rng([found.kept.seed, day]), {"day": day})
        for actor in self._actors:
            actor.forget(task.n_envs)
        shape = (len(rows), found.kept.n_steps)
        seen: dict[str, Any] = {a: np.zeros((*shape, len(a_.observed)), np.float32)
                                for a, a_ in zip(self._policy_of, task.agents, strict=True)}  # fmt: skip
        right, rewards = np.zeros((*shape, found.actions.shape[2])), np.zeros((*shape, len(task.agents)))
        for step in range(found.kept.n_steps):
            for agent, own in zip(self._policy_of, task.observe(), strict=True):
                seen[agent][:, step] = own[: len(rows)]
            right[:, step] = found.actions[rows, step]
            if notes:
                self._batteries.note(rows, step)
            else:
                self._batteries.lead_back(right[:, step], rows, step)
            chosen = choose(step, rows)
            task.action_buffer()[: len(rows)] = chosen
            task.action_buffer()[len(rows) :] = chosen[-1]
            task.step()
            rewards[:, step] = task.rewards[: len(rows)]
        if notes:
            self._batteries.note(rows, found.kept.n_steps)
        return _Played(seen, right, rewards)

    # -- learning

    def clone(self, name: str, played: Sequence[_Played], passes: int) -> tuple[float, float]:
        """Learn what would have been right; return the error of continuous actions left, and the positions missed."""
        module, space, first_log_std = self._modules[name], self._spaces[name], _first_log_std(self._modules[name])
        rows, continuous, positions = self._lessons(self._agents_of[name], played)

        def look(own: Any) -> tuple[Any, Any, list[Any]]:
            batch = self._batch(module, {Columns.OBS: rows[own]})
            inputs = module._forward(batch)[Columns.ACTION_DIST_INPUTS].flatten(0, -2)
            mean, log_std, logits = _split_inputs(space, inputs)
            off = mean - continuous[own]
            off = torch.where(continuous[own] >= 1.0 - _AT_BOUND, off.clamp(max=0.0), off)
            return torch.where(continuous[own] <= _AT_BOUND - 1.0, off.clamp(min=0.0), off), log_std, logits

        def loss(own: Any) -> Any:
            off, log_std, logits = look(own)
            total = off.square().sum(1).mean() + (log_std - first_log_std).square().sum(1).mean()
            for i, each in enumerate(logits):
                total = total + torch.nn.functional.cross_entropy(each, positions[own, i])
            return total

        self._learn(module, loss, len(rows), passes)
        with torch.no_grad():
            off, _, logits = look(slice(None))
            wrong = [float((each.argmax(1) != positions[:, i]).float().mean()) for i, each in enumerate(logits)]
        return float(off.square().mean()) ** 0.5 if off.numel() else 0.0, float(np.mean(wrong)) if wrong else 0.0

    def _lessons(self, agents: Sequence[str], played: Sequence[_Played]) -> tuple[Any, Any, Any]:
        """Return what agents of a policy saw, and the continuous actions and positions right then, rows first."""
        told = {agent.name: agent for agent in self._task.agents}
        seen = [part.seen[agent].reshape(-1, part.seen[agent].shape[2]) for part in played for agent in agents]
        right = [
            _parts_of(told[agent].read_action(part.right.reshape(-1, part.right.shape[2])))
            for part in played
            for agent in agents
        ]
        continuous, positions = (np.concatenate([each[i] for each in right]) for i in (0, 1))
        return torch.from_numpy(np.concatenate(seen)), torch.from_numpy(continuous), torch.from_numpy(positions)

    def value(self, passes: int) -> dict[str, float]:
        """Teach critics the discounted return of what the policies do, with exploration; nothing follows a day.

        Returns:
            By policy, the share of the variance that is explained.
        """
        played, explained = self.play(explore=True), dict[str, float]()
        left = np.zeros_like(played.rewards)
        for step in reversed(range(left.shape[1])):
            follows = left[:, step + 1] if step + 1 < left.shape[1] else 0.0
            left[:, step] = played.rewards[:, step] + self._gamma * follows
        agents = list(self._policy_of)
        flat = {a: rows.reshape(-1, rows.shape[2]) for a, rows in played.seen.items()}
        for name, own in self._agents_of.items():
            module, central = self._modules[name], isinstance(self._modules[name], CentralCriticModule)
            rows = [_joint(flat, agents, a) if central else flat[a] for a in own]
            seen = {JOINT_OBSERVATION if central else Columns.OBS: torch.from_numpy(np.concatenate(rows))}
            if central and module.memory:
                seen[Columns.OBS] = torch.from_numpy(np.concatenate([flat[a] for a in own]))
            target = torch.from_numpy(np.concatenate([left[:, :, agents.index(a)].ravel() for a in own])).float()

            def loss(which: Any, module: Any = module, seen: Any = seen, target: Any = target) -> Any:
                batch = self._batch(module, {column: values[which] for column, values in seen.items()})
                return (module.compute_values(batch).flatten() - target[which]).square().mean()

            self._learn(module, loss, len(target), passes)
            with torch.no_grad():
                left_over = float(loss(slice(None)))
            explained[name] = 1.0 - left_over / max(float(target.var()), 1e-12)
        return explained

    def _learn(self, module: Any, loss: Any, n_rows: int, passes: int) -> None:
        """Descend a loss in passes over rows, of whole days where there is a memory; the rate falls to the last."""
        together = self._found.kept.n_steps if module.memory else 1
        module.train()
        optimizer = torch.optim.Adam(module.parameters(), lr=_LR)
        parts = max(1, n_rows // max(_ROWS, together))
        steps = passes * parts
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=_LR_END)
        for _ in range(passes):
            order = torch.from_numpy(self._rng.permutation(n_rows // together))
            for own in order.tensor_split(parts):
                optimizer.zero_grad()
                loss((own[:, None] * together + torch.arange(together)).flatten()).backward()
                optimizer.step()
                schedule.step()
        module.eval()

    def _batch(self, module: Any, columns: dict[str, Any]) -> dict[str, Any]:
        """Return columns of rows as a module takes them: one with a memory takes days, which start with nothing."""
        if not module.memory:
            return columns
        days = {name: rows.reshape(-1, self._found.kept.n_steps, rows.shape[1]) for name, rows in columns.items()}
        first = module.get_initial_state().items()
        count = len(days[Columns.OBS])
        return {**days, Columns.STATE_IN: {name: own.repeat(count, 1) for name, own in first}}


class _Batteries:
    """Note the charge of batteries on days that are shown, and lead others' back to it.

    Args:
        task: The task that plays the days.
        n_steps: Steps of a day.
        n_days: Days.
    """

    def __init__(self, task: GridTask, n_steps: int, n_days: int) -> None:
        simulation, self._dt_h = task.simulation, task.simulation.dt_h
        places = {name: (f, i) for f in simulation.fleets if f.kind == "storage" for i, name in enumerate(f.names)}
        self._led = [
            (column, spec, *places[spec.device])
            for column, spec in enumerate(simulation.actions)
            if spec.device in places and spec.name == "p_kw"
        ]
        self._soc = np.zeros((n_days, n_steps + 1, len(self._led)))

    def note(self, rows: NDArray[np.int64], step: int) -> None:
        """Note the charge before a step, or after the last."""
        for i, (_, _, fleet, place) in enumerate(self._led):
            self._soc[rows, step, i] = fleet.soc[: len(rows), place]

    def lead_back(self, right: FloatArray, rows: NDArray[np.int64], step: int) -> None:
        """Write the actions that bring each battery nearer to the charge that it had, shape (n, n_actions)."""
        for i, (column, action, fleet, place) in enumerate(self._led):
            spec = fleet.specs[place]
            there, then = self._soc[rows, step, i], self._soc[rows, step + 1, i]
            less = there - then + (fleet.soc[: len(rows), place] - there) * min(self._dt_h / _BACK_WITHIN_H, 1.0)
            cell_kw = less * spec.e_max_kwh / self._dt_h - spec.standby_loss_kw
            p_kw = np.where(cell_kw > 0.0, cell_kw * spec.eta_discharge, cell_kw / spec.eta_charge)
            asked = (p_kw - action.offset) / action.gain
            right[:, column] = (
                np.clip(np.rint(asked), 0, action.n - 1) if action.discrete else np.clip(asked, -1.0, 1.0)
            )


def _of_agent(values: Any, place: int) -> Any:
    if isinstance(values, Mapping):
        return {key: _of_agent(part, place) for key, part in values.items()}
    return values[:, place]


def _parts_of(action: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the continuous actions and the positions of an agent's actions, rows first."""
    if isinstance(action, Mapping):
        return np.asarray(action["continuous"], np.float32), np.asarray(action["discrete"], np.int64)
    values = np.asarray(action)
    none = values[:, :0]
    if values.dtype.kind == "f":
        return values.astype(np.float32), none.astype(np.int64)
    return none.astype(np.float32), values.astype(np.int64)


def _split_inputs(space: gym.Space[Any], inputs: Any) -> tuple[Any, Any, list[Any]]:
    """Return means, logarithms of spreads and logits of each position of the inputs of an action distribution."""
    parts: Any = space.spaces if isinstance(space, gym.spaces.Dict) else {"": space}
    mean, log_std, logits, first = inputs[:, :0], inputs[:, :0], [], 0
    for part in parts.values():
        if isinstance(part, gym.spaces.Box):
            n = int(np.prod(part.shape))
            mean, log_std = inputs[:, first : first + n], inputs[:, first + n : first + 2 * n]
            first += 2 * n
        else:
            for n in part.nvec.tolist():
                logits.append(inputs[:, first : first + n])
                first += n
    return mean, log_std, logits


def _first_log_std(module: Any) -> float:
    return float(module.model_config.get("initial_log_std") or 0.0)


def _joint(flat: Mapping[str, Any], agents: Sequence[str], agent: str) -> NDArray[np.float32]:
    """Return what MAPPO's critic sees, as :class:`JointObservations` puts it together."""
    who = np.zeros((len(flat[agent]), len(agents)), np.float32)
    who[:, agents.index(agent)] = 1.0
    return np.concatenate([flat[agent], *(flat[each] for each in agents), who], axis=1)
