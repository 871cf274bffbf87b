"""One controller sees everything and decides over every device: Gymnasium's Env, and its VectorEnv for many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from powergrid.envs.agents import ActionForm, CentralActions, find_form_problems
from powergrid.envs.backends import BackendName, VectorFace
from powergrid.envs.describe import Description, describe_scenario
from powergrid.envs.episode import Episode, Face
from powergrid.envs.feeders import WholeView
from powergrid.envs.masks import MaskTeller, Reach
from powergrid.errors import ScenarioError, describe_unknown
from powergrid.quantities import MONEY_TERMS, QUANTITIES
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class CentralGridEnv(Face, gym.Env[Any, Any]):
    """Play a scenario as one controller; physics, terms and days as in ``NetworkedGridEnv``.

    Description:
        Every device that an agent of the scenario owns is decided over by this one. Devices of no agent are left to
        themselves, as they are for agents.

    Action Space:
        ``actions`` says which form it has; in each the actions stand in the order of the table of actions.

        - ``mixed``: what the devices are. ``MultiDiscrete`` where all have positions, ``Box`` where none has, else a
          ``Dict`` of ``continuous`` and ``discrete``.
        - ``multidiscrete``: ``MultiDiscrete``; a continuous action becomes ``levels`` evenly spaced values.
        - ``box``: ``Box(-1, 1)``; an action with n positions reads the interval as n equal parts, lowest first.
        - ``auto``: as ``mixed``, but a ``Box`` where that would be a ``Dict``, which few single-agent libraries take.

    Observation Space:
        ``Box(-1, 1)`` of float32: every channel of the table once, that is the world, every zone, the network with the
        voltage of every node, and every device. Where the scenario has several feeders and their tables differ, what
        all of them have comes first, and zeros fill up what a feeder lacks: ``observed`` in infos says from where on.

    Rewards:
        The sum of what the scenario's agents get.

    Starting State:
        A day of the scenario's split, drawn by the seed or given as ``options={"day": n}``; and before it a feeder,
        or ``options={"feeder": name}``, where the scenario has several.

    Episode End:
        ``truncated`` at the horizon; ``terminated`` where the power flow diverges and the scenario says so.

    Args:
        scenario: The scenario.
        actions: Form of the action space.
        levels: Number of values of a continuous action in the form ``multidiscrete``, at least 2.

    Raises:
        ScenarioError: ``actions`` or ``levels`` is not one of these, or whatever is wrong in the scenario.
        FeederError: the feeder does not compile or solve.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012
    render_mode = None

    def __init__(self, scenario: Scenario, actions: ActionForm = "auto", levels: int = 33) -> None:
        problems = find_form_problems(actions, levels)
        if problems:
            raise ScenarioError("make_central", problems)
        self.scenario, self._form, self._levels = scenario, actions, levels
        self._episode = Episode(scenario)
        self._view = WholeView(self._episode.tasks)
        self._combiners = {task.info_names: InfoCombiner(task.info_names, task.told) for task in self._episode.tasks}
        self._reading = CentralActions(self.task.agents, actions, levels)
        self._told = MaskTeller(scenario, self._reading.masks)
        self.observation_space: gym.spaces.Space[Any] = self._told.extend(self._view.width)
        self.action_space: gym.spaces.Space[Any] = self._reading.space

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Starts the stream of days and other draws anew; None goes on with it. The first reset without one
                takes the scenario's ``seed``.
            options: ``{"day": n}`` picks the day, ``{"feeder": name}`` the feeder where the scenario has several; keys
                of the scenario give numbers, or what they are drawn from.

        Raises:
            ScenarioError: an option is unknown or wrong, or the power flow does not converge at the start.
        """
        self._episode.start(seed, options)
        super().reset(seed=seed)
        return self._look()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one step.

        Raises:
            ActionError: the action has a wrong shape, type or value.
            ScenarioError: no episode is being played, or the environment is closed.
        """
        task = self._episode.ready()
        self._reading.write(action, task.action_buffer())
        terminated, truncated = self._episode.play()
        return self._observe(), float(task.rewards[0].sum()), terminated, truncated, self._info()

    def neutral_action(self) -> Any:
        """Return the action that leaves every device to itself, as in ``action_space``."""
        return self._reading.read(self.task.simulation.neutral())

    def action_masks(self) -> BoolArray:
        """Return which positions can be had in the step to come, all of the first action first, shape (n,).

        The form that ``MaskablePPO`` of sb3-contrib asks for. Of a ``Dict`` of actions it is of the discrete ones; a
        continuous power of a battery has levels in the form ``multidiscrete``, and they are masked by its charge.

        Raises:
            ScenarioError: no action has positions in this form.
        """
        mask: BoolArray = self._told.read(self.task.simulation.reach())[0]
        return mask

    def render(self) -> None:
        """Draw nothing: there is no render mode."""

    # -- parts of a step

    def _look(self) -> tuple[Any, dict[str, Any]]:
        return self._observe(), self._info()

    def _observe(self) -> Any:
        seen = self._view.gather(self.task)
        return seen if self._told.beside != "observations" else {"observations": seen, "action_mask": self._mask()}

    def _info(self) -> dict[str, Any]:
        task = self.task
        combiner = self._combiners[task.info_names]
        numbers = combiner.combine(task.infos()[:, :, combiner.columns])[:, 0].tolist() if combiner.names else ()
        info = dict(zip(combiner.names, numbers, strict=True)) | self._episode.labels()
        if not self._view.even:
            info["observed"] = self._view.count(self.task)
        return {**info, "action_mask": self._mask()} if self._told.beside == "infos" else info

    def _mask(self) -> npt.NDArray[np.int8]:
        return self.action_masks().astype(np.int8)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.scenario, self._form, self._levels), self._moment()


class CentralVectorEnv(VectorFace, VectorEnv[Any, Any, npt.NDArray[Any]]):
    """Play a scenario as one controller in several environments at once.

    Environment ``i`` is what :class:`powergrid.envs.CentralGridEnv` is alone: with the same seed it plays the same days
    and gives, for the same actions, the same observations, rewards and infos.

    Args:
        scenario: The scenario, its name, the path of its file, or its data.
        num_envs: Number of environments.
        actions: Form of the action space, as in ``CentralGridEnv``.
        levels: Number of values of a continuous action in the form ``multidiscrete``.
        autoreset_mode: Gymnasium's ``NEXT_STEP``, ``SAME_STEP`` or ``DISABLED``; it stands in ``metadata``.
        backend: Where environments are played: ``inline`` or ``processes``.
        workers: Number of processes that play, the caller's among them; None takes one for each processor.
        timeout_s: With ``processes``, longest wait for what a worker plays [s]; one that does not answer is killed.
            None for five minutes, or a hundred times as long as this process took for its own part.

    Raises:
        ScenarioError: the scenario is wrong, or an argument is; all of them.
        FeederError: the feeder does not compile or solve.
        EngineError: a worker ended or hangs; in any call.
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
        timeout_s: float | None = None,
    ) -> None:
        self._own = {"actions": actions, "levels": levels}
        self._open(
            scenario, num_envs, "central", find_form_problems(actions, levels),
            autoreset_mode=autoreset_mode, backend=backend, workers=workers, timeout_s=timeout_s,
        )  # fmt: skip
        self._mode, self._layout = autoreset_mode, self._slices.layout
        self._combiner = InfoCombiner(self._layout.info_names, self._layout.told)
        self._reading = CentralActions(self._layout.agents, actions, levels, num_envs)
        self._told = MaskTeller(self.scenario, self._reading.masks)
        self.single_observation_space = self._told.extend(self._layout.n_observed)
        self.single_action_space = self._reading.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes.

        Args:
            seed: Environment ``i`` takes ``seed + i``, or its own of several; None goes on with the streams.
            options: ``day`` picks the day, ``feeder`` the feeder of several, ``reset_mask`` the environments, shape
                (num_envs,); keys of the scenario give numbers, or what they are drawn from.

        Returns:
            Observations, shape (num_envs, n_observed), float32, and infos as Gymnasium has them: an array for each
            name, with the mask of the environments that have it under ``_name``.

        Raises:
            ScenarioError: an option or a seed is wrong, or the power flow does not converge at the start.
        """
        started = self._slices.reset(seed, options)
        super().reset(seed=seed if isinstance(seed, int) else None)
        return self._observe(), self._infos(started)

    def step(self, actions: Any) -> tuple[Any, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Play one step in every environment.

        Args:
            actions: As in ``action_space``.

        Returns:
            Observations (num_envs, n_observed), rewards (num_envs,), terminated and truncated (num_envs,), infos. In
            ``NEXT_STEP`` mode an environment that was over before starts anew, whatever its action, with reward 0; in
            ``SAME_STEP`` mode infos have ``final_obs`` and ``final_info``.

        Raises:
            ActionError: an action has a wrong shape, type or value; all of them, with their environment.
            ScenarioError: nothing was started yet, all is closed, or an environment is over and autoreset is
                ``DISABLED``.
            ConvergenceError: the power flow did not converge and the scenario says ``raise``.
        """
        self._slices.require_started()
        if self._mode is AutoresetMode.DISABLED and self._slices.over.any():
            those = ", ".join(map(str, np.flatnonzero(self._slices.over)))
            raise ScenarioError(self.scenario.name, [f"environments {those} are over; reset them by reset_mask"])
        board = self._board
        self._reading.write(actions, board.actions)
        self._slices.step()
        terminated, truncated = board.terminated.copy(), board.truncated.copy()
        over, infos = terminated | truncated, dict[str, Any]()
        if self._mode is AutoresetMode.SAME_STEP and over.any():
            infos = self._finals(over)
        rewards = board.rewards.sum(axis=1)
        return self._observe(), rewards, terminated, truncated, infos | self._infos()

    def neutral_actions(self) -> Any:
        """Return the actions that leave every device to itself at the present step, as :meth:`step` takes them."""
        return self._reading.read(self._slices.neutral())

    def action_masks(self) -> BoolArray:
        """Return which positions can be had in the step to come, see :meth:`CentralGridEnv.action_masks`.

        Returns:
            Shape (num_envs, n).
        """
        return self._told.read(self._slices.reach())

    def describe(self) -> Description:
        """Return tables of observations, actions, rewards, infos, agents and devices, agent by agent."""
        return describe_scenario(self.scenario)

    def close_extras(self, **kwargs: Any) -> None:
        """Release engines and workers."""
        if hasattr(self, "_slices"):  # Gymnasium closes what could not be built, too
            self._slices.close()

    def _look(self) -> tuple[Any, dict[str, Any]]:
        return self._observe(), self._infos()

    def _observe(self) -> Any:
        board = self._board
        return self._told.show(board.observations.copy(), (board.least, board.most))

    def _infos(self, of: BoolArray | None = None) -> dict[str, Any]:
        board = self._board
        reach = board.least, board.most
        infos = self._slices.infos() if self._combiner.names else board.infos
        rows = infos, board.day, board.worst_node, board.observed, reach
        return self._as_infos(*rows, of, self._slices.drawn())

    def _finals(self, over: BoolArray) -> dict[str, Any]:
        """Return what environments ended with, as Gymnasium's own vector environments do."""
        self._slices.complete_finals(over)
        board = self._board
        ends = np.full(self.num_envs, None, dtype=object)
        reach = board.final_least, board.final_most
        for env in np.flatnonzero(over):
            one = slice(env, env + 1)
            seen = self._told.show(board.final_observations[one].copy(), (reach[0][one], reach[1][one]))
            ends[env] = {name: part[0] for name, part in seen.items()} if isinstance(seen, dict) else seen[0]
        finals = board.final_infos, board.final_days, board.final_worst_nodes, board.final_observed
        told = self._as_infos(*finals, reach, over, self._slices.final_drawn)
        return {"final_obs": ends, "_final_obs": over, "final_info": told, "_final_info": over.copy()}

    def _as_infos(
        self,
        infos: FloatArray,
        day: IntArray,
        worst: IntArray,
        observed: IntArray,
        reach: Reach,
        of: BoolArray | None,
        drawn: Sequence[Mapping[str, float]],
    ) -> dict[str, Any]:
        combiner, own = self._combiner, dict[str, npt.NDArray[Any]]()
        if combiner.names:
            own |= zip(combiner.names, combiner.combine(infos[:, :, combiner.columns]), strict=True)
        if self._layout.told is None:
            own["day"] = day.copy()
        if self.scenario.infos == "full":
            own["worst_node"] = self._layout.nodes[worst]
            if self._layout.feeders is not None:
                own["feeder"] = self._layout.feeders[worst]
        if not self._layout.even:
            own["observed"] = observed.copy()
        if self._told.beside == "infos":
            own["action_mask"] = self._told.read(reach).astype(np.int8)
        mask = np.ones(self.num_envs, dtype=bool) if of is None else of
        told: dict[str, Any] = {}
        for name, values in own.items():
            if not mask.all():
                values[~mask] = None if values.dtype == object else 0
            told[name], told[f"_{name}"] = values, mask.copy()
        for name in dict.fromkeys(key for each in drawn for key in each):  # options of one reset may say more
            have = mask & np.array([name in each for each in drawn])
            numbers = np.array([each.get(name, 0.0) for each in drawn])
            told[name], told[f"_{name}"] = np.where(have, numbers, 0.0), have
        return told


class InfoCombiner:
    """Make infos of agents those of one controller: added up or at their extreme, as the table of quantities says.

    Args:
        infos: Names of the infos of agents.
        told: Which of them are told, None for all.

    Attributes:
        columns: Where those that are told are among the infos of agents.
        names: Names of the combined: the same, and what all agents' money adds up to where that is told.
    """

    def __init__(self, infos: Sequence[str], told: Sequence[int] | None = None) -> None:
        self.columns: Sequence[int] | slice = slice(None) if told is None else list(told)
        own = tuple(infos) if told is None else tuple(infos[column] for column in told)
        self._money = [own.index(term) for term in MONEY_TERMS if term in own]
        self.names = (*own, "cost_usd") if self._money else own
        ways = [QUANTITIES[name].of_agents for name in own]
        self._n, self._n_own = len(own), (*ways, "same").index("same")  # agents' own stand before the network's
        self._lowest, self._highest = ([i for i, way in enumerate(ways) if way == w] for w in ("min", "max"))

    def combine(self, infos: FloatArray) -> FloatArray:
        """Return fresh infos name by name, shape (len(names), n_envs).

        Args:
            infos: Infos by agent that are told, shape (n_envs, n_agents, n_told).
        """
        combined = np.empty((len(self.names), len(infos)))
        combined[: self._n] = infos[:, 0].T
        np.add.reduce(infos[:, :, : self._n_own], axis=1, out=combined[: self._n_own].T)
        combined[self._lowest] = infos[:, :, self._lowest].min(axis=1).T
        combined[self._highest] = infos[:, :, self._highest].max(axis=1).T
        if self._money:
            np.add.reduce(combined[self._money], out=combined[-1])
        return combined


def set_battery_levels(scenario: Scenario, battery: str | None, levels: int) -> Scenario:
    """Return a scenario whose storage has ``levels`` powers (``discrete``), any (``continuous``), or as it was (None).

    Raises:
        ScenarioError: ``battery`` is none of these, or a battery cannot have so many levels.
    """
    if battery is None:
        return scenario
    forms = ["discrete", "continuous"]
    if battery not in forms:
        raise ScenarioError("make_central", [f"battery: {describe_unknown('form', battery, forms)}"])
    chosen = levels if battery == "discrete" else None
    storage = [name for name, spec in scenario.devices.items() if spec.kind == "storage"]
    return load_scenario(scenario, {f"devices.{name}.levels": chosen for name in storage})
