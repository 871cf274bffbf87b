"""The same core as a PettingZoo ParallelEnv."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from pettingzoo import ParallelEnv

from powergrid.envs.core import read_options
from powergrid.envs.episode import AgentsFace
from powergrid.envs.feeders import WholeView
from powergrid.scenario import Scenario

Observations = dict[str, Any]


class ParallelGridEnv(AgentsFace, ParallelEnv[str, Any, Any]):  # type: ignore[misc]
    """Play a scenario through PettingZoo's parallel API; spaces, rewards and infos as in ``NetworkedGridEnv``.

    Unlike there, ``terminations`` and ``truncations`` are given per agent, as PettingZoo wants them.

    Args:
        scenario: The scenario.
    """

    metadata: dict[str, Any] = {"name": "powergrid_v0", "render_modes": [], "is_parallelizable": True}  # noqa: RUF012

    def __init__(self, scenario: Scenario) -> None:
        self.render_mode = None
        self._open(scenario)
        self.agents: list[str] = []
        self._whole = WholeView(self._episode.tasks)
        self.state_space = gym.spaces.Box(-1.0, 1.0, (self._whole.width,), np.float32)

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
        given = {key: value for key, value in read_options(options).items() if key != "options"}
        self._episode.start(seed, given)
        return self._look()

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one step; once the episode is over, all that comes back is empty.

        Raises:
            ActionError: an action has a wrong agent, shape, type or value; all of them.
            ScenarioError: the environment was never reset, or is closed.
        """
        episode, agents = self._episode, self.agents
        if episode.over:
            episode.task.require_open()
            return {}, {}, {}, {}, {}
        task = episode.ready()
        self._writer.write(actions, task.action_buffer())
        terminated, truncated = episode.play()
        if terminated or truncated:  # PettingZoo tells the end of an episode by there being no agents
            self.agents = []
        return (
            task.observation_dict(0),
            dict(zip(agents, task.rewards[0].tolist(), strict=True)),
            dict.fromkeys(agents, terminated),
            dict.fromkeys(agents, truncated),
            episode.infos(),
        )

    def state(self) -> npt.NDArray[np.float32]:
        """Return the whole of what is seen, as one: every channel once, as in ``state_space``.

        It is the observation of ``powergrid.make_central``, for a critic that sees more than its agents. To keep a
        moment, see :meth:`get_state`.
        """
        return self._whole.gather(self.task)

    def render(self) -> None:
        """Draw nothing: there is no render mode."""

    def _look(self) -> tuple[Observations, dict[str, dict[str, Any]]]:
        self.agents = list(self.possible_agents) if self._episode.playing else []
        return self.task.observation_dict(0), self._episode.infos()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.scenario,), self._moment()
