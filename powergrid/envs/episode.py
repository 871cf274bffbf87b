"""What starts an episode and what ends it, and what faces that play one, or many, have in common."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import ActionWriter, require_actions
from powergrid.envs.core import OF_ANOTHER, GridTask, State
from powergrid.envs.describe import Description, describe
from powergrid.envs.feeders import FeederTasks
from powergrid.errors import ScenarioError, find_number_problems
from powergrid.grid.devices.spec import MOST_SEED
from powergrid.scenario import Scenario

if TYPE_CHECKING:
    from typing_extensions import Self

#: What starts the stream of draws of an environment: None goes on with it, an empty tuple takes any, else the numbers.
Entropy = tuple[int, ...] | None

NOT_STARTED = "no episode is being played; call reset() before step()"


@dataclass(frozen=True)
class Stream:
    """A moment of a generator: where its draws stand, and how many children it has, which draw too.

    Attributes:
        state: State of its bit generator.
        seeds: What children come of.
    """

    state: Mapping[str, Any]
    seeds: Any

    @classmethod
    def of(cls, rng: np.random.Generator) -> Stream:
        """Copy the moment."""
        return cls(rng.bit_generator.state, copy.copy(rng.bit_generator.seed_seq))

    def resume(self) -> np.random.Generator:
        """Return a generator at that moment."""
        rng = np.random.Generator(np.random.PCG64(copy.copy(self.seeds)))
        rng.bit_generator.state = self.state
        return rng


@dataclass(frozen=True)
class EpisodeState:
    """A moment of an environment: its episode, and the stream that draws the days to come.

    Attributes:
        task: What is played, as :meth:`powergrid.envs.core.GridTask.state` keeps it.
        feeder: Which of the scenario's feeders, None where there is one.
        stream: What draws, None before the first reset.
        playing: Whether the episode goes on.
        ranges: What a curriculum has the episodes to come draw by.
    """

    task: State
    feeder: str | None
    stream: Stream | None
    playing: bool
    ranges: Mapping[str, Any] = field(default_factory=dict)


class Episode:
    """Play one environment of a scenario, from reset to the end of the episode, and know whether one is on.

    Args:
        scenario: The scenario.
        stream: Tells its draws apart from those of other environments with the same seed.

    Attributes:
        task: The task that is played: of the feeder that was drawn last.
        rng: The stream of draws, None before the first reset.
        playing: Whether an episode is on.
        closed: Whether the engines are released.
    """

    def __init__(self, scenario: Scenario, stream: Sequence[int] = ()) -> None:
        self.scenario, self.stream = scenario, tuple(stream)
        self._feeders = FeederTasks(scenario)
        self.task = self._feeders.first
        self.rng: np.random.Generator | None = None
        self.playing = self.closed = False

    def start(self, seed: int | None, options: Mapping[str, Any] | None) -> GridTask:
        """Start an episode and return its task.

        Args:
            seed: Starts the stream of draws anew; None goes on with it, or takes the scenario's the first time.
            options: ``feeder`` picks the feeder where there are several; the rest is the task's.

        Raises:
            ScenarioError: an option is wrong, the power flow does not converge, or the environment is closed.
        """
        problems = find_number_problems(0, MOST_SEED, seed=seed)
        if problems:
            raise ScenarioError("reset", problems)
        if options:
            self._feeders.check(options)  # before the stream of draws is another
        if seed is not None or self.rng is None:
            entropy = self.scenario.seed if seed is None else seed
            # a list, not a sum: neighbouring seeds of neighbouring workers would meet in the same stream
            self.rng = np.random.default_rng(None if entropy is None else [entropy, *self.stream])
        feeder, left = self._feeders.draw(self.rng, options)
        self.task = self._feeders.tasks[feeder]
        self.task.reset(0, self.rng, left)
        self.playing = True
        return self.task

    @property
    def started(self) -> bool:
        """Whether there was a first reset."""
        return self.rng is not None

    @property
    def over(self) -> bool:
        """Whether an episode was played to its end, and none has started since."""
        return self.rng is not None and not self.playing

    def ready(self) -> GridTask:
        """Return the task of the episode that is on.

        Raises:
            ScenarioError: the environment is closed, or no episode is on.
        """
        if not self.playing:
            self.task.require_open()
            raise ScenarioError(self.scenario.name, [NOT_STARTED])
        return self.task

    def play(self) -> tuple[bool, bool]:
        """Play the actions that were written, and say whether the episode was terminated or else truncated."""
        task = self.task
        task.step()
        terminated = bool(task.terminated[0])
        truncated = bool(task.truncated[0]) and not terminated
        self.playing = not (terminated or truncated)
        return terminated, truncated

    def state(self) -> EpisodeState:
        """Copy the moment.

        Raises:
            ScenarioError: the environment is closed.
        """
        self.task.require_open()
        names = self._feeders.tasks if self._feeders.several else {}
        feeder = next((name for name, task in names.items() if task is self.task), None)
        stream = None if self.rng is None else Stream.of(self.rng)
        return EpisodeState(self.task.state(), feeder, stream, self.playing, dict(self.task.draws.given))

    def restore(self, state: EpisodeState) -> GridTask:
        """Go back to a :meth:`state` and return its task.

        Raises:
            ScenarioError: it is none, or of another scenario, or the environment is closed.
        """
        if not isinstance(state, EpisodeState):
            raise ScenarioError(self.scenario.name, [f"{type(state).__name__} given; take what get_state() gave"])
        task = self._feeders.tasks.get(state.feeder or "") if self._feeders.several else self.task
        if task is None:
            raise ScenarioError(self.scenario.name, [OF_ANOTHER])
        task.require_fit(state.task)  # before anything is changed
        self.change(state.ranges)
        task.restore(state.task)
        self.task, self.playing = task, state.playing
        self.rng = None if state.stream is None else state.stream.resume()
        return task

    @property
    def tasks(self) -> tuple[GridTask, ...]:
        """The tasks of all feeders, in their order."""
        return tuple(self._feeders.tasks.values())

    def change(self, ranges: Mapping[str, Any]) -> None:
        """Draw the episodes to come by other ranges, see :meth:`powergrid.envs.draws.Draws.change`."""
        self.task.require_open()
        for task in self.tasks:
            if ranges or task.draws.given:
                task.draws.change(ranges)

    def infos(self) -> dict[str, dict[str, Any]]:
        """Return the infos by agent, with the feeder where there are several and names are wanted."""
        infos = self.task.info_dicts(0)
        if self.scenario.feeders:
            label = self._feeders.label(self.task)
            for info in infos.values():
                info.update(label)
        return infos

    def labels(self) -> dict[str, Any]:
        """Return what infos hold besides numbers: the day, and names where they are wanted."""
        return {**self.task.info_labels(0), **(self._feeders.label(self.task) if self.scenario.feeders else {})}

    def close(self) -> None:
        """Release the engine, all of them where there are several; may come more than once."""
        self.playing, self.closed = False, True
        self._feeders.close()


class Player(Protocol):
    """What plays and can go back: an episode, or many in lockstep."""

    closed: bool

    @property
    def started(self) -> bool:
        """Whether there was a first reset."""

    def state(self) -> Any:
        """Copy the moment."""

    def restore(self, state: Any) -> Any:
        """Go back to it."""

    def change(self, ranges: Mapping[str, Any]) -> None:
        """Draw the episodes to come by other ranges."""


class Kept:
    """Let moments of an environment be kept, gone back to and copied."""

    @property
    def _player(self) -> Player:
        raise NotImplementedError

    def get_state(self) -> Any:
        """Copy the moment: grid, devices, day, rewards so far and the stream of draws; arrays, which pickle.

        Raises:
            ScenarioError: the environment is closed.
        """
        return self._player.state()

    def set_state(self, state: Any) -> tuple[Any, Any]:
        """Go back to a moment of this environment, or of another of the same scenario, in whatever process.

        What follows is the same bit for bit as it was from there.

        Returns:
            Observations and infos of that moment, as ``reset`` returns them.

        Raises:
            ScenarioError: it is no such state, or the environment is closed.
        """
        self._player.restore(state)
        return self._look()

    def set_ranges(self, ranges: Mapping[str, Any]) -> None:
        """Draw the episodes to come by these, and by the scenario's ranges where they say nothing.

        For a curriculum: from the next reset on, in every environment. Without any it is the scenario's again.

        Args:
            ranges: A distribution, or a number that all episodes have, by key of the scenario, nested or with dots:
                ``{"load_scale": {"uniform": [0.8, 1.3]}, "devices.ess_*.soc_initial": 0.5}``.

        Raises:
            ScenarioError: a key cannot be drawn, or a value is wrong; all of them.
        """
        self._player.change(ranges)

    def clone(self) -> Self:
        """Return another environment at the same moment, with an engine of its own; ``copy.deepcopy`` does the same.

        Of one that is closed, or was never started, it is one that waits for its first reset.
        """
        return copy.deepcopy(self)

    def _look(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def _moment(self) -> Any:
        """Return what a pickle goes on from: nothing where no episode was started, or all is closed."""
        return self.get_state() if self._player.started and not self._player.closed else None

    def __setstate__(self, state: Any) -> None:
        self.set_state(state)


class Face(Kept):
    """What plays one episode at a time has its task, its tables and its end."""

    _episode: Episode

    @property
    def task(self) -> GridTask:
        """The task that is played: of the feeder that was drawn last, where there are several."""
        return self._episode.task

    def describe(self) -> Description:
        """Return tables of observations, actions, rewards, infos, agents and devices: name, unit, bounds, owner."""
        return describe(self.task)

    def close(self) -> None:
        """Release the engine, all of them where there are several."""
        self._episode.close()

    @property
    def _player(self) -> Episode:
        return self._episode


class AgentsFace(Face):
    """The same with a space for each agent, by name."""

    possible_agents: list[str]

    def _open(self, scenario: Scenario, stream: Sequence[int] = ()) -> None:
        """Take up a scenario, its agents and what each of them sees and does."""
        self.scenario, self._episode = scenario, Episode(scenario, stream)
        agents = self.task.agents
        require_actions(scenario, agents)
        self._writer = ActionWriter(agents)
        self.possible_agents = [agent.name for agent in agents]
        self.observation_spaces: dict[str, Any] = {agent.name: agent.observation_space for agent in agents}
        self.action_spaces: dict[str, Any] = {agent.name: agent.action_space for agent in agents}

    def action_masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Return which positions agents can have in the step to come, see ``action_masks`` of the scenario.

        Returns:
            Of each agent that has positions an array, all positions of its first action first.
        """
        return self.task.action_masks(0)
