"""GridVectorEnv: n environments of one scenario stepped in lockstep, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from powergrid.envs.agents import Agent
from powergrid.envs.describe import Description, describe
from powergrid.envs.task import GridTask
from powergrid.errors import ActionError, ScenarioError, describe_unknown
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Observations = dict[str, npt.NDArray[np.float32]]


class GridVectorEnv:
    """Play a scenario in several environments at once, every agent's data as one array.

    Environment ``i`` is what :class:`powergrid.envs.NetworkedGridEnv` is alone: with the same seed it plays the same
    days and gives, for the same actions, the same observations, rewards and infos.

    Args:
        scenario: The scenario, its name, the path of its file, or its data.
        num_envs: Number of environments.
        autoreset_mode: ``SAME_STEP``: an environment that is over starts anew within the same step, and what it ended
            with is in the fifth result. ``DISABLED``: reset it by ``options={"reset_mask": mask}``; until then it plays
            on to no purpose.
        worker_index: Tells apart the streams of draws of several workers, as RLlib numbers them.

    Attributes:
        possible_agents: Names of the agents.
        single_observation_spaces: Observation space of one environment, by agent.
        single_action_spaces: Action space of one environment, by agent.
        info_names: Names of the last axis of :meth:`infos`.

    Raises:
        ScenarioError: the scenario is wrong, or an argument is.
        FeederError: the feeder does not compile or solve.
    """

    def __init__(
        self,
        scenario: Scenario | str | Path | Mapping[str, Any],
        num_envs: int,
        *,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        worker_index: int | None = None,
    ) -> None:
        _check(num_envs, autoreset_mode)
        self.scenario = load_scenario(scenario)
        self.num_envs = num_envs
        self.metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": autoreset_mode}
        self.task = GridTask(self.scenario, num_envs)
        agents = self.task.agents
        self.possible_agents = [agent.name for agent in agents]
        self.single_observation_spaces = {agent.name: agent.observation_space for agent in agents}
        self.single_action_spaces = {agent.name: agent.action_space for agent in agents}
        self.info_names = self.task.info_names
        self._same_step = autoreset_mode is AutoresetMode.SAME_STEP
        self._worker_index = worker_index
        self._rngs: list[np.random.Generator] = []
        self._writers = [_Writer(agent) for agent in agents]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start episodes.

        Args:
            seed: Starts the streams of draws anew: environment ``i`` takes ``seed + i``, or its own of several. None
                goes on with them; the first reset without one takes the scenario's ``seed``.
            options: ``day`` picks the day, ``reset_mask`` the environments, shape (num_envs,).

        Returns:
            Observations by agent, each of shape (num_envs, n_observed) and float32, and an empty dict.

        Raises:
            ScenarioError: an option or a seed is wrong, or the power flow does not converge at the start.
        """
        chosen = dict(options or {})
        envs = self._pick_envs(chosen.pop("reset_mask", None))
        self._seed(seed, envs)
        self.task.reset_all(envs, [self._rngs[env] for env in envs], chosen)
        return self._observations(), {}

    def step(self, actions: Mapping[str, Any]) -> tuple[Observations, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Play one step in every environment.

        Args:
            actions: For each agent an array of shape (num_envs, n): as its action space, environments first. A Dict
                space takes a mapping of such arrays.

        Returns:
            Observations by agent, each (num_envs, n_observed), float32; rewards (num_envs, n_agents); terminated and
            truncated (num_envs,). The fifth is empty until an environment is over in ``SAME_STEP`` mode; then it holds
            ``final_obs`` (as observations), ``final_info`` (as :meth:`infos`) and ``_final_obs``, the mask of those
            environments. All arrays are the caller's.

        Raises:
            ActionError: an action has a wrong agent, shape, type or value; all of them, with their environment.
            ScenarioError: nothing was started yet.
            ConvergenceError: the power flow did not converge and the scenario says ``raise``.
        """
        task = self.task
        self._write_actions(actions)
        task.step()
        rewards, terminated = task.rewards.copy(), task.terminated.copy()
        truncated = task.truncated & ~terminated
        final: dict[str, Any] = {}
        over = terminated | truncated
        if self._same_step and over.any():
            final = {"final_obs": self._observations(), "final_info": task.infos().copy(), "_final_obs": over}
            envs = np.flatnonzero(over).tolist()
            task.reset_all(envs, [self._rngs[env] for env in envs])
        return self._observations(), rewards, terminated, truncated, final

    def infos(self) -> FloatArray:
        """Give terms and metrics of the last step, shape (num_envs, n_agents, len(info_names)); reused at each call.

        In ``SAME_STEP`` mode those of an environment that was over are in ``final_info``; here it has started anew.
        """
        return self.task.infos()

    def neutral_actions(self) -> dict[str, Any]:
        """Give the actions that leave every device to itself at the present step, as :meth:`step` takes them."""
        neutral = self.task.simulation.neutral()
        return {writer.agent.name: writer.read(neutral) for writer in self._writers}

    def describe(self) -> Description:
        """Give tables of observations, actions, rewards, infos, agents and devices: name, unit, bounds, owner."""
        return describe(self.task)

    def close(self) -> None:
        """Give the engines back."""
        self.task.close()

    def _observations(self) -> Observations:
        return dict(zip(self.possible_agents, self.task.observe(), strict=True))

    def _pick_envs(self, mask: Any) -> list[int]:
        if mask is None:
            return list(range(self.num_envs))
        chosen = np.asarray(mask)
        if chosen.shape != (self.num_envs,) or chosen.dtype != np.bool_:
            raise ScenarioError(
                "options", [f"reset_mask has shape {chosen.shape}, {chosen.dtype}; expected ({self.num_envs},), bool"]
            )
        if not self._rngs and not chosen.all():
            raise ScenarioError("options", ["reset_mask leaves out environments that were never started"])
        return np.flatnonzero(chosen).tolist()

    def _seed(self, seed: int | Sequence[int | None] | None, envs: Sequence[int]) -> None:
        if seed is None or isinstance(seed, int | np.integer):
            seeds: Sequence[int | None] = [None if seed is None else int(seed) + env for env in range(self.num_envs)]
        elif len(seed) == self.num_envs:
            seeds = seed
        else:
            raise ScenarioError("seed", [f"{len(seed)} seeds for {self.num_envs} environments"])
        if not self._rngs:
            self._rngs = [self._stream(self._scenario_seed(env), env) for env in range(self.num_envs)]
        for env in envs:
            own = seeds[env]
            if own is not None:
                self._rngs[env] = self._stream(own, env)

    def _scenario_seed(self, env: int) -> int | None:
        seed = self.scenario.seed
        return seed if seed is None or self._worker_index is not None else seed + env

    def _stream(self, seed: int | None, env: int) -> np.random.Generator:
        """Give the stream that NetworkedGridEnv has for the seed, worker and place among the worker's."""
        place = () if self._worker_index is None else (self._worker_index, env)
        return np.random.default_rng(None if seed is None else [seed, *place])

    def _write_actions(self, actions: Mapping[str, Any]) -> None:
        if not self._rngs:
            raise ScenarioError(self.scenario.name, ["no episode is being played; call reset() before step()"])
        out = self.task.action_buffer()
        try:
            sound = len(actions) == len(self._writers) and all(
                writer.write(actions[writer.agent.name], out) for writer in self._writers
            )
        except (KeyError, TypeError, ValueError, IndexError):
            sound = False
        if not sound:
            raise ActionError("actions", self._find_problems(actions))

    def _find_problems(self, actions: Any) -> list[str]:
        """Say what is wrong with actions that were refused: slow, and only then needed."""
        names = self.possible_agents
        if not isinstance(actions, Mapping):
            return [f"expected one array for each agent by its name, not {actions!r:.60}"]
        problems = [f"agent {name!r} has no action" for name in names if name not in actions]
        problems += [describe_unknown("agent", name, names) for name in actions if name not in names]
        scratch = np.zeros(self.task.action_buffer().shape[1])
        for agent in self.task.agents:
            if agent.name not in actions:
                continue
            rows = _split_rows(actions[agent.name], self.num_envs)
            if rows is None:
                problems.append(f"agent {agent.name!r}: actions do not have {self.num_envs} environments first")
                continue
            for env, row in enumerate(rows):
                problems += [f"environment {env}: {problem}" for problem in agent.write_action(row, scratch)]
        return problems


class _Writer:
    """Put one agent's actions of all environments into the action matrix."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._both = bool(len(agent.continuous)) and bool(len(agent.discrete))
        self._last = agent.sizes - 1

    def write(self, action: Any, out: FloatArray) -> bool:
        """Write a batch; False where something is wrong with it."""
        agent = self.agent
        if self._both:
            return (
                len(action) == 2
                and self._write_continuous(action["continuous"], out)
                and self._write_discrete(action["discrete"], out)
            )
        return (self._write_discrete if len(agent.discrete) else self._write_continuous)(action, out)

    def read(self, matrix: FloatArray) -> Any:
        """Give the agent's part of the matrix, as :meth:`write` takes it."""
        continuous = matrix[:, self.agent.continuous].astype(np.float32)
        discrete = np.rint(matrix[:, self.agent.discrete]).astype(np.int64)
        if self._both:
            return {"continuous": continuous, "discrete": discrete}
        return discrete if len(self.agent.discrete) else continuous

    def _write_continuous(self, action: Any, out: FloatArray) -> bool:
        values = np.asarray(action, dtype=np.float64)
        columns = self.agent.continuous
        if values.shape != (len(out), len(columns)) or not np.abs(values).max(initial=0.0) <= 1.0 + 1e-4:
            return False  # NaN is not <= either
        out[:, columns] = values
        return True

    def _write_discrete(self, action: Any, out: FloatArray) -> bool:
        values = np.asarray(action, dtype=np.float64)
        columns = self.agent.discrete
        if values.shape != (len(out), len(columns)):
            return False
        if not ((values >= 0) & (values <= self._last) & (values == np.rint(values))).all():
            return False
        out[:, columns] = values
        return True


def _split_rows(action: Any, n: int) -> list[Any] | None:
    """Give a batch as one action for each environment, None where it is not a batch of n."""
    if isinstance(action, Mapping):
        parts = {key: _split_rows(value, n) for key, value in action.items()}
        if any(rows is None for rows in parts.values()):
            return None
        return [{key: rows[env] for key, rows in parts.items() if rows is not None} for env in range(n)]
    try:
        return list(action) if len(action) == n else None
    except TypeError:
        return None


def _check(num_envs: int, autoreset_mode: Any) -> None:
    problems = []
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        problems.append(f"num_envs {num_envs!r} is not a whole number above 0")
    if autoreset_mode not in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        problems.append(f"autoreset_mode {autoreset_mode!r} is not AutoresetMode.SAME_STEP or DISABLED")
    if problems:
        raise ScenarioError("GridVectorEnv", problems)
