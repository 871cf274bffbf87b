"""The same core as a PettingZoo ParallelEnv."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pettingzoo import ParallelEnv

from powergrid.envs.agents import ActionWriter, require_actions
from powergrid.envs.describe import Description, describe
from powergrid.envs.feeders import FeederTasks
from powergrid.errors import ScenarioError
from powergrid.scenario import Scenario

Observations = dict[str, npt.NDArray[np.float32]]


class ParallelGridEnv(ParallelEnv[str, Any, Any]):  # type: ignore[misc]
    """Play a scenario through PettingZoo's parallel API; spaces, rewards and infos as in ``NetworkedGridEnv``.

    Unlike there, ``terminations`` and ``truncations`` are given per agent, as PettingZoo wants them.

    Args:
        scenario: The scenario.
    """

    metadata: dict[str, Any] = {"name": "powergrid_v0", "render_modes": [], "is_parallelizable": True}  # noqa: RUF012

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.render_mode = None
        self._feeders = FeederTasks(scenario)
        self.task = self._feeders.first
        require_actions(self.scenario, self.task.agents)
        self._writer = ActionWriter(self.task.agents)
        self._rng: np.random.Generator | None = None
        self.possible_agents = [agent.name for agent in self.task.agents]
        self.agents: list[str] = []
        self.observation_spaces = {agent.name: agent.observation_space for agent in self.task.agents}
        self.action_spaces = {agent.name: agent.action_space for agent in self.task.agents}

    def observation_space(self, agent: str) -> Any:
        """Return the observation space of an agent."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        """Return the action space of an agent."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, dict[str, Any]]]:
        """Start an episode.

        Args:
            seed: Starts the stream of days and other draws anew; None goes on with it. The first reset without one
                takes the scenario's ``seed``.
            options: ``{"day": n}`` picks the day, ``{"feeder": name}`` the feeder of several. ``{"options": ...}``
                is let pass: PettingZoo's own test gives it.

        Raises:
            ScenarioError: an option is unknown or wrong, or the power flow does not converge at the start.
        """
        if seed is not None or self._rng is None:
            entropy = self.scenario.seed if seed is None else seed
            self._rng = np.random.default_rng(None if entropy is None else [entropy])
        given = {key: value for key, value in (options or {}).items() if key != "options"}
        self.task, left = self._feeders.draw(self._rng, given)
        self.task.reset(0, self._rng, left)
        self.agents = list(self.possible_agents)
        return self._observations(), self._infos()

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one step; once the episode is over, all that comes back is empty.

        Raises:
            ActionError: an action has a wrong agent, shape, type or value; all of them.
            ScenarioError: the environment was never reset.
        """
        if self._rng is None:
            raise ScenarioError(self.scenario.name, ["no episode is being played; call reset() before step()"])
        if not self.agents:
            return {}, {}, {}, {}, {}
        task = self.task
        self._writer.write(actions, task.action_buffer()[0])
        task.step()
        terminated = bool(task.terminated[0])
        truncated = bool(task.truncated[0]) and not terminated
        agents = self.agents
        rewards = dict(zip(agents, task.rewards[0].tolist(), strict=True))
        result = (
            self._observations(),
            rewards,
            dict.fromkeys(agents, terminated),
            dict.fromkeys(agents, truncated),
            self._infos(),
        )
        if terminated or truncated:
            self.agents = []
        return result

    def describe(self) -> Description:
        """Return tables of observations, actions, rewards, infos, agents and devices."""
        return describe(self.task)

    def render(self) -> None:
        """Draw nothing: there is no render mode."""

    def close(self) -> None:
        """Release the engine, all of them where there are several."""
        self._feeders.close()

    def _observations(self) -> Observations:
        return self.task.observation_dict(0)

    def _infos(self) -> dict[str, dict[str, Any]]:
        return self._feeders.infos(self.task)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.scenario,)
