"""The central view of many environments: Gymnasium's VectorEnv on the batched core."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from powergrid.envs.backends import BackendName, find_backend_problems, open_backend
from powergrid.envs.central import combine_infos
from powergrid.envs.central_actions import ActionForm, CentralActions, find_form_problems
from powergrid.envs.describe import Description, describe_scenario
from powergrid.envs.seeding import Seeding
from powergrid.errors import ActionError, ScenarioError
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Observations = npt.NDArray[np.float32]


class CentralVectorEnv(VectorEnv[Observations, Any, npt.NDArray[Any]]):
    """Play a scenario as one controller in several environments at once.

    Environment ``i`` is what :class:`powergrid.envs.CentralGridEnv` is alone: with the same seed it plays the same days
    and gives, for the same actions, the same observations, rewards and infos.

    Args:
        scenario: The scenario, its name, the path of its file, or its data.
        num_envs: Number of environments.
        actions: Form of the action space, as in ``CentralGridEnv``.
        levels: Number of values of a continuous action in the form ``multidiscrete``.
        autoreset_mode: Gymnasium's ``NEXT_STEP``, ``SAME_STEP`` or ``DISABLED``; it stands in ``metadata``.
        backend: Where environments are played: ``inline``, ``threads`` or ``processes``.
        workers: Number of threads or processes that play, the caller's among them; None takes one for each processor.

    Raises:
        ScenarioError: the scenario is wrong, or an argument is; all of them.
        FeederError: the feeder does not compile or solve.
        EngineError: a worker ended; in any call.
    """

    def __init__(
        self,
        scenario: Scenario | str | Path | Mapping[str, Any],
        num_envs: int,
        *,
        actions: ActionForm = "auto",
        levels: int = 33,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        backend: BackendName = "inline",
        workers: int | None = None,
    ) -> None:
        problems = [*find_form_problems(actions, levels), *find_backend_problems(backend, workers)]
        if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
            problems.append(f"num_envs {num_envs!r} is not a whole number above 0")
        if not isinstance(autoreset_mode, AutoresetMode):
            problems.append(f"autoreset_mode {autoreset_mode!r} is not one of gymnasium.vector.AutoresetMode")
        if problems:
            raise ScenarioError("CentralVectorEnv", problems)
        self.scenario, self.num_envs, self.backend = load_scenario(scenario), num_envs, backend
        self.metadata = {"render_modes": [], "autoreset_mode": autoreset_mode}
        self._mode = autoreset_mode
        self._rebuild = (actions, levels, autoreset_mode, backend, workers)
        same_step = autoreset_mode is AutoresetMode.SAME_STEP
        self._slices = open_backend(backend, self.scenario, "central", num_envs, same_step=same_step, workers=workers)
        self._board, self._layout = self._slices.board, self._slices.layout
        self._reading = CentralActions(self._layout.agents, actions, levels)
        self.single_observation_space = gym.spaces.Box(-1.0, 1.0, (self._layout.n_observed,), np.float32)
        self.single_action_space = self._reading.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeding = Seeding(self.scenario, num_envs)
        self._over = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start episodes.

        Args:
            seed: Environment ``i`` takes ``seed + i``, or its own of several; None goes on with the streams.
            options: ``day`` picks the day, ``reset_mask`` the environments, shape (num_envs,).

        Returns:
            Observations, shape (num_envs, n_observed), float32, and infos as Gymnasium has them: an array for each
            name, with the mask of the environments that have it under ``_name``.

        Raises:
            ScenarioError: an option or a seed is wrong, or the power flow does not converge at the start.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        entropies, left = self._seeding.read(seed, options)
        self._slices.reset(entropies, left)
        self._seeding.started = True
        started = np.zeros(self.num_envs, dtype=bool)
        started[list(entropies)] = True
        self._over &= ~started
        return self._board.observations.copy(), self._infos(started)

    def step(self, actions: Any) -> tuple[Observations, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Play one step in every environment.

        Args:
            actions: As in ``action_space``.

        Returns:
            Observations (num_envs, n_observed), rewards (num_envs,), terminated and truncated (num_envs,), infos. In
            ``NEXT_STEP`` mode an environment that was over before starts anew, whatever its action, with reward 0; in
            ``SAME_STEP`` mode infos have ``final_obs`` and ``final_info``.

        Raises:
            ActionError: an action has a wrong shape, type or value; all of them, with their environment.
            ScenarioError: nothing was started yet, or an environment is over and autoreset is ``DISABLED``.
            ConvergenceError: the power flow did not converge and the scenario says ``raise``.
        """
        if not self._seeding.started:
            raise ScenarioError(self.scenario.name, ["no episode is being played; call reset() before step()"])
        ended = self._over
        if self._mode is AutoresetMode.DISABLED and ended.any():
            those = ", ".join(map(str, np.flatnonzero(ended)))
            raise ScenarioError(self.scenario.name, [f"environments {those} are over; reset them by reset_mask"])
        problems = self._reading.write(actions, self._board.actions)
        if problems:
            raise ActionError("actions", problems)
        board = self._board
        infos: dict[str, Any] = {}
        if ended.all():
            self._restart(ended)
            rewards, terminated, truncated = np.zeros(self.num_envs), np.zeros_like(ended), np.zeros_like(ended)
        else:
            self._slices.step()
            rewards = board.rewards.sum(axis=1)
            terminated, truncated = board.terminated.copy(), board.truncated.copy()
            if ended.any():
                self._restart(ended)
                rewards[ended], terminated[ended], truncated[ended] = 0.0, False, False
        over = terminated | truncated
        if self._mode is AutoresetMode.SAME_STEP:
            if over.any():
                infos = self._finals(over)
        else:
            self._over = over
        return board.observations.copy(), rewards, terminated, truncated, infos | self._infos()

    def neutral_actions(self) -> Any:
        """Return the actions that leave every device to itself at the present step, as :meth:`step` takes them."""
        return self._reading.read(self._slices.neutral())

    def describe(self) -> Description:
        """Return tables of observations, actions, rewards, infos, agents and devices, agent by agent."""
        return describe_scenario(self.scenario)

    def close_extras(self, **kwargs: Any) -> None:
        """Release engines and workers."""
        if hasattr(self, "_slices"):  # Gymnasium closes what could not be built, too
            self._slices.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _build, (type(self), self.scenario, self.num_envs, *self._rebuild)

    def _restart(self, envs: BoolArray) -> None:
        self._slices.reset(dict.fromkeys(np.flatnonzero(envs).tolist()), {})

    def _infos(self, of: BoolArray | None = None) -> dict[str, Any]:
        board = self._board
        return self._as_infos(self._slices.infos(), board.day, board.worst_node, of)

    def _finals(self, over: BoolArray) -> dict[str, Any]:
        """Return what environments ended with, as Gymnasium's own vector environments do."""
        self._slices.complete_finals(over)
        board = self._board
        ends = np.full(self.num_envs, None, dtype=object)
        for env in np.flatnonzero(over):
            ends[env] = board.final_observations[env].copy()
        told = self._as_infos(board.final_infos, board.final_days, board.final_worst_nodes, over)
        return {"final_obs": ends, "_final_obs": over, "final_info": told, "_final_info": over.copy()}

    def _as_infos(
        self, infos: FloatArray, day: npt.NDArray[np.int64], worst: npt.NDArray[np.int64], of: BoolArray | None
    ) -> dict[str, Any]:
        own = combine_infos(infos, self._layout.info_names)
        own["worst_node"] = self._layout.nodes[worst]
        own["day"] = day.copy()
        mask = np.ones(self.num_envs, dtype=bool) if of is None else of
        told: dict[str, Any] = {}
        for name, values in own.items():
            if not mask.all():
                values[~mask] = None if values.dtype == object else 0
            told[name], told[f"_{name}"] = values, mask.copy()
        return told


def _build(
    kind: type[CentralVectorEnv],
    scenario: Scenario,
    num_envs: int,
    actions: ActionForm,
    levels: int,
    autoreset_mode: AutoresetMode,
    backend: BackendName,
    workers: int | None,
) -> CentralVectorEnv:
    """Build a pickled environment anew, before its first reset."""
    return kind(
        scenario,
        num_envs,
        actions=actions,
        levels=levels,
        autoreset_mode=autoreset_mode,
        backend=backend,
        workers=workers,
    )
