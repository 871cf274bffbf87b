"""What starts an episode and what ends it: seeds, the draw of a feeder, and whether one is being played."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from powergrid.envs.core import GridTask, State, read_options
from powergrid.errors import ScenarioError, find_number_problems
from powergrid.grid.devices.spec import MOST_SEED
from powergrid.scenario import Scenario, pick_feeder, scenarios_by_feeder

if TYPE_CHECKING:
    from typing_extensions import Self

Seed = int | Sequence[int | None] | None
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
        task = self.task
        if self._feeders.several:
            task = self._feeders.tasks[pick_feeder(self.scenario, state.feeder)]
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
        """Return another environment at the same moment, with an engine of its own; ``copy.deepcopy`` does the same."""
        return copy.deepcopy(self)

    def _look(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def _moment(self) -> Any:
        """Return what a pickle goes on from: nothing where no episode was started, or all is closed."""
        return self.get_state() if self._player.started and not self._player.closed else None

    def __setstate__(self, state: Any) -> None:
        self.set_state(state)


class FeederTasks:
    """Build a scenario's tasks, feeder by feeder; of a scenario with one feeder, the one.

    Args:
        scenario: The scenario.
        n_envs: Number of environments; each task has as many rows as few draws of so many exceed.

    Attributes:
        tasks: Tasks by feeder, as the scenario names them.
        scenarios: The scenario on each of them.

    Raises:
        ScenarioError: something has no place on a feeder, or spaces differ between feeders; all of it.
    """

    def __init__(self, scenario: Scenario, n_envs: int = 1) -> None:
        self._scenario = scenario
        self.tasks: dict[str, GridTask] = {}
        self.scenarios: dict[str, Scenario] = {}
        problems: list[str] = []
        weights = np.array(list(scenario.feeders.values()) or [1.0])
        self._chances = weights / weights.sum()
        # three standard deviations above the mean of the draws: one task in some hundred resets needs more
        spread = np.sqrt(n_envs * self._chances * (1.0 - self._chances))
        rows = np.clip(np.ceil(n_envs * self._chances + 3.0 * spread), 1, n_envs).astype(int).tolist()
        try:
            self.scenarios = scenarios_by_feeder(scenario)
            for (name, own), n_rows in zip(self.scenarios.items(), rows, strict=True):
                try:
                    self.tasks[name] = GridTask(own, n_rows)
                except ScenarioError as error:
                    if not self.several:
                        raise
                    problems += [f"{name}: {problem}" for problem in error.problems]
            problems = problems or (_differences(self.tasks) if self.several else [])
            if problems:
                raise ScenarioError(scenario.name, problems)
        except BaseException:
            self.close()
            raise

    @property
    def several(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self._scenario.feeders)

    @property
    def first(self) -> GridTask:
        """The task of the first feeder."""
        return next(iter(self.tasks.values()))

    def draw(self, rng: np.random.Generator, options: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any] | None]:
        """Return the feeder of an episode, and the options that are left.

        Args:
            rng: Draws the feeder where ``options`` does not name it; untouched where there is one alone.
            options: ``feeder`` picks the feeder.
        """
        if not self.several:
            return next(iter(self.tasks)), options
        left = read_options(options)
        name = left.pop("feeder", None)
        if name is None:
            name = list(self.tasks)[int(rng.choice(len(self.tasks), p=self._chances))]
        return pick_feeder(self._scenario, name), left

    def label(self, task: GridTask) -> dict[str, Any]:
        """Return the feeder of a task as infos hold it: nothing where no names are wanted."""
        return {"feeder": task.scenario.feeder} if self._scenario.infos == "full" else {}

    def close(self) -> None:
        """Release all engines."""
        for task in self.tasks.values():
            task.close()


def _differences(tasks: Mapping[str, GridTask]) -> list[str]:
    """Say where agents see or decide other things on one feeder than on the first."""
    (home, first), *others = tasks.items()
    problems = []
    for name, task in others:
        for one, other in zip(first.agents, task.agents, strict=False):
            for kind in ("action", "observation"):
                mine, theirs = (getattr(agent, f"{kind}_space") for agent in (one, other))
                if mine != theirs:
                    problems.append(f"agent {one.name!r}: its {kind} space is {mine} on {home}, but {theirs} on {name}")
            seen, too = ([t.channels.table[i].name for i in a.observed] for t, a in ((first, one), (task, other)))
            if len(seen) == len(too) and seen != too:
                new = next(b for a, b in zip(seen, too, strict=True) if a != b)
                problems.append(f"agent {one.name!r}: it sees {new!r} on {name}, and something else there on {home}")
        if len(first.agents) != len(task.agents):
            problems.append(f"there are {len(first.agents)} agents on {home}, but {len(task.agents)} on {name}")
    return problems


class Seeding:
    """Turn the arguments of ``reset`` into environments and what starts each one's stream.

    Args:
        first_seed: The seed of a first reset without one.
        n_envs: Number of environments.
        worker_index: Tells apart the streams of several workers, as RLlib numbers them.

    Attributes:
        started: Whether all environments were started once.
    """

    def __init__(self, first_seed: int | None, n_envs: int, worker_index: int | None = None) -> None:
        self._seed, self._n_envs, self._worker_index = first_seed, n_envs, worker_index
        self.started = False

    def read(self, seed: Seed, options: Mapping[str, Any] | None) -> tuple[dict[int, Entropy], dict[str, Any]]:
        """Return what starts the stream of each environment to start, and the options that are left.

        Raises:
            ScenarioError: the mask or the seeds are wrong.
        """
        left = read_options(options)
        envs = self._pick_envs(left.pop("reset_mask", None))
        seeds = self._spread(seed)
        return {env: self._entropy(env, seeds[env]) for env in envs}, left

    def _entropy(self, env: int, own: int | None) -> Entropy:
        """Return the numbers that NetworkedGridEnv starts from with the seed, worker and place among the worker's."""
        if own is None and self.started:
            return None
        if own is None:
            own = self._seed if self._seed is None or self._worker_index is not None else self._seed + env
        if own is None:
            return ()
        return (int(own),) if self._worker_index is None else (int(own), self._worker_index, env)

    def _spread(self, seed: Seed) -> Sequence[int | None]:
        if seed is None:
            return [None] * self._n_envs
        seeds = list(seed) if isinstance(seed, list | tuple | np.ndarray) else None
        if seeds is not None and len(seeds) != self._n_envs:
            raise ScenarioError("seed", [f"{len(seeds)} seeds for {self._n_envs} environments"])
        each = {"seed": seed} if seeds is None else {f"seed[{env}]": own for env, own in enumerate(seeds)}
        problems = find_number_problems(0, MOST_SEED, **each)
        if problems:
            raise ScenarioError("seed", problems)
        return [int(seed) + env for env in range(self._n_envs)] if seeds is None else seeds  # type: ignore[arg-type]

    def _pick_envs(self, mask: Any) -> list[int]:
        if mask is None:
            return list(range(self._n_envs))
        chosen = np.asarray(mask)
        if chosen.shape != (self._n_envs,) or chosen.dtype != np.bool_:
            raise ScenarioError(
                "options", [f"reset_mask has shape {chosen.shape}, {chosen.dtype}; expected ({self._n_envs},), bool"]
            )
        if not self.started and not chosen.all():
            raise ScenarioError("options", ["reset_mask leaves out environments that were never started"])
        return np.flatnonzero(chosen).tolist()
