"""GridVectorEnv: n environments of one scenario stepped in lockstep, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from powergrid.envs.agents import ActionWriter
from powergrid.envs.backends import BackendName, Inline, VectorFace
from powergrid.envs.core import GridTask
from powergrid.envs.describe import Description, describe, describe_scenario
from powergrid.envs.masks import Reach, add_masks
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Observations = dict[str, Any]


class GridVectorEnv(VectorFace):
    """Play a scenario in several environments at once, every agent's data as one array.

    Environment ``i`` is what :class:`powergrid.envs.NetworkedGridEnv` is alone: with the same seed it plays the same
    days and gives, for the same actions, the same observations, rewards and infos. Where the scenario has several
    feeders it draws the same ones; infos that a feeder lacks are 0.

    Args:
        scenario: The scenario, its name, the path of its file, or its data.
        num_envs: Number of environments.
        autoreset_mode: Gymnasium's, which stands in ``metadata``. ``SAME_STEP``: an environment that is over starts
            anew within the same step, and what it ended with is in the fifth result. ``NEXT_STEP``: in the step after,
            whatever its action, with rewards 0. ``DISABLED``: reset it by ``options={"reset_mask": mask}``; until then
            it plays on to no purpose.
        worker_index: Tells apart the streams of draws of several workers, as RLlib numbers them.
        backend: Where environments are played: ``inline``, in this process, or ``processes``, some of them in worker
            processes that share memory with this one. Both play the same, bit for bit.
        workers: Number of processes that play, the caller's among them; None takes one for each processor.
        timeout_s: With ``processes``, longest wait for what a worker plays [s]; one that does not answer is killed.
            None for five minutes, or a hundred times as long as this process took for its own part.

    Attributes:
        possible_agents: Names of the agents.
        single_observation_space, single_action_space: Spaces of one environment, a ``Dict`` by agent.
        observation_space, action_space: Those of all, as :meth:`reset` gives and :meth:`step` takes.
        info_names: Names of the last axis of :meth:`infos`.

    Raises:
        ScenarioError: the scenario is wrong, or an argument is.
        FeederError: the feeder does not compile or solve.
        EngineError: a worker ended or hangs; in any call.
    """

    def __init__(
        self,
        scenario: Scenario | str | Path | Mapping[str, Any],
        num_envs: int,
        *,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        worker_index: int | None = None,
        backend: BackendName = "inline",
        workers: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._own = {"worker_index": worker_index}
        self._open(
            scenario, num_envs, "agents",
            autoreset_mode=autoreset_mode, backend=backend, workers=workers, timeout_s=timeout_s,
        )  # fmt: skip
        layout = self._slices.layout
        agents = layout.agents
        self.possible_agents = [agent.name for agent in agents]
        # pairs, which keep the agents' order
        self.single_observation_space = gym.spaces.Dict([(agent.name, agent.observation_space) for agent in agents])
        self.single_action_space = gym.spaces.Dict([(agent.name, agent.action_space) for agent in agents])
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.info_names = layout.info_names
        self._writer = ActionWriter(agents, num_envs)
        ends = np.cumsum([len(agent.observed) for agent in agents]).tolist()
        self._columns = [slice(end - len(agent.observed), end) for end, agent in zip(ends, agents, strict=True)]

    @property
    def task(self) -> GridTask:
        """The task below, of the first feeder where there are several, where they are played in this process.

        Raises:
            AttributeError: they are played elsewhere.
        """
        if isinstance(self._slices, Inline):
            return self._slices.slice.task
        raise AttributeError(f"with backend {self.backend!r} tasks are the workers' own; only 'inline' has one here")

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start episodes.

        Args:
            seed: Starts the streams of draws anew: environment ``i`` takes ``seed + i``, or its own of several. None
                goes on with them; the first reset without one takes the scenario's ``seed``.
            options: ``day`` picks the day, ``feeder`` the feeder of several, ``reset_mask`` the environments, shape
                (num_envs,); keys of the scenario give numbers, or what they are drawn from.

        Returns:
            Observations by agent, each of shape (num_envs, n_observed) and float32, and an empty dict.

        Raises:
            ScenarioError: an option or a seed is wrong, or the power flow does not converge at the start.
        """
        self._slices.reset(seed, options)
        return self._look()

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
            ScenarioError: nothing was started yet, or all is closed.
            ConvergenceError: the power flow did not converge and the scenario says ``raise``.
        """
        board = self._board
        self._slices.require_started()
        self._writer.write(actions, board.actions)
        self._slices.step()
        terminated, truncated = board.terminated.copy(), board.truncated.copy()
        final: dict[str, Any] = {}
        over = terminated | truncated
        if self.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and over.any():
            self._slices.complete_finals(over)
            final = {
                "final_obs": self._by_agent(board.final_observations, (board.final_least, board.final_most)),
                "final_info": board.final_infos.copy(),
                "_final_obs": over,
            }
        return self._observations(), board.rewards.copy(), terminated, truncated, final

    def infos(self) -> FloatArray:
        """Return terms and metrics of the last step, shape (num_envs, n_agents, len(info_names)); reused at each call.

        In ``SAME_STEP`` mode those of an environment that was over are in ``final_info``; here it has started anew.
        """
        return self._slices.infos()

    def info_dicts(self, env: int) -> dict[str, dict[str, Any]]:
        """Return the infos of one environment as ``NetworkedGridEnv`` does, by agent."""
        return self._slices.info_dicts(env)

    def neutral_actions(self) -> dict[str, Any]:
        """Return the actions that leave every device to itself at the present step, as :meth:`step` takes them."""
        return self._writer.read(self._slices.neutral())

    def action_masks(self) -> dict[str, BoolArray]:
        """Return which positions agents can have in the step to come, see ``action_masks`` of the scenario.

        Returns:
            Of each agent that has positions an array (num_envs, n), all positions of its first action first.
        """
        return self._read_masks(self._slices.reach())

    def describe(self) -> Description:
        """Return tables of observations, actions, rewards, infos, agents and devices: name, unit, bounds, owner."""
        return describe(self.task) if isinstance(self._slices, Inline) else describe_scenario(self.scenario)

    def close(self) -> None:
        """Release engines and workers."""
        self._slices.close()

    def _look(self) -> tuple[Observations, dict[str, Any]]:
        return self._observations(), {}

    def _observations(self) -> Observations:
        board = self._board
        return self._by_agent(board.observations, (board.least, board.most))

    def _by_agent(self, seen: npt.NDArray[np.float32], reach: Reach) -> Observations:
        own = seen.copy()
        by_agent = {name: own[:, columns] for name, columns in zip(self.possible_agents, self._columns, strict=True)}
        return (
            add_masks(by_agent, self._read_masks(reach)) if self.scenario.action_masks == "observations" else by_agent
        )

    def _read_masks(self, reach: Reach) -> dict[str, BoolArray]:
        return {agent.name: agent.masks.read(reach) for agent in self._slices.layout.agents if agent.masks.size}
