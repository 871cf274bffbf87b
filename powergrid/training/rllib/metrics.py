"""What an episode's infos amount to, per agent and over agents, and the RLlib callback that logs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.callbacks.callbacks import RLlibCallback

from powergrid.errors import PowerGridError
from powergrid.quantities import over_episode

#: Under this key of RLlib's ``env_runners`` result, and before the names in ``progress.csv``.
CUSTOM = "custom"
#: Names that earlier versions of RLlib had at the top of the result, and learner metrics among them.
RETURN_ALIAS = "episode_reward_mean"
LEARNER_ALIASES = ("policy_loss", "vf_loss", "entropy")
#: Under these keys of what learners report of all policies, and before the names in ``progress.csv``: what an episode
#: cost of what is limited, and how much that weighs.
EPISODE_COST, MULTIPLIER = "episode_cost", "multiplier"


class EpisodeTotals:
    """Gather one episode's infos, in any number of pieces, into one number a name."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, float]] = {}
        self._counts: dict[str, dict[str, int]] = {}
        self._last: dict[str, dict[str, float]] = {}

    def add(self, agent: str, infos: Sequence[Mapping[str, Any]]) -> None:
        """Take in an agent's infos of consecutive steps; entries that are no number are left out."""
        if not infos:
            return
        sums, counts = self._sums.setdefault(agent, {}), self._counts.setdefault(agent, {})
        names, table = _tabulate(infos)
        given = ~np.isnan(table)
        totals = np.where(given, table, 0.0).sum(axis=0)
        for name, total, count in zip(names, totals.tolist(), given.sum(axis=0).tolist(), strict=True):
            sums[name] = sums.get(name, 0.0) + total
            counts[name] = counts.get(name, 0) + count
        self._last.setdefault(agent, {}).update(zip(names, table[-1].tolist(), strict=True))

    def result(self) -> dict[str, float]:
        """Return ``<agent>/<name>`` for every agent, and ``<name>``, the mean of the agents that report it."""
        per_agent: dict[str, float] = {}
        over_agents: dict[str, list[float]] = {}
        for agent, sums in self._sums.items():
            for name, total in sums.items():
                count = self._counts[agent][name]
                if count:
                    how = over_episode(name)
                    value = {"sum": total, "last": self._last[agent][name], "mean": total / count}[how]
                    per_agent[f"{agent}/{name}"] = value
                    over_agents.setdefault(name, []).append(value)
        return {**{name: float(np.mean(values)) for name, values in over_agents.items()}, **per_agent}


class RunningTotals:
    """Do what :class:`EpisodeTotals` does, for many environments whose infos come as arrays.

    Args:
        n_envs: Number of environments.
        agents: The agents.
        names: Names of the infos; the last one is the day.

    Attributes:
        keys: What :meth:`result` gives, in its order: names, then agents with names.
    """

    def __init__(self, n_envs: int, agents: Sequence[str], names: Sequence[str]) -> None:
        shape = (n_envs, len(agents), len(names))
        self.keys = [(name,) for name in names] + [(agent, name) for agent in agents for name in names]
        self._sums, self._counts, self._last = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._waiting: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
        how = [over_episode(name) for name in names]
        self._how = [np.array([each == kind for each in how]) for kind in ("sum", "last")]

    def add(self, infos: NDArray[np.float64], day: NDArray[np.int64]) -> None:
        """Take in one step: infos of shape (n_envs, n_agents, n_names - 1), days of shape (n_envs,)."""
        self._waiting.append((infos.copy(), day.copy()))

    def _add_waiting(self) -> None:
        """Add up the steps that wait, all at once: one sum over many costs a fraction of many sums."""
        if not self._waiting:
            return
        steps = np.empty((len(self._waiting), *self._sums.shape))
        for step, (infos, day) in zip(steps, self._waiting, strict=True):
            step[:, :, :-1] = infos
            step[:, :, -1] = day[:, None]
        self._waiting.clear()
        given = ~np.isnan(steps)
        self._counts += given.sum(axis=0)
        self._sums += steps.sum(axis=0) if given.all() else np.where(given, steps, 0.0).sum(axis=0)
        self._last[:] = steps[-1]

    def clear(self, env: int) -> None:
        """Begin an episode."""
        self._add_waiting()
        self._sums[env] = self._counts[env] = 0.0

    def result(self, env: int) -> NDArray[np.float64]:
        """Return what :meth:`EpisodeTotals.result` gives of one environment's episode, shape (len(keys),).

        What no step gave is NaN.
        """
        self._add_waiting()
        sums, counts = self._sums[env], self._counts[env]
        summed, last = self._how
        values = np.where(summed, sums, np.where(last, self._last[env], sums / np.maximum(counts, 1.0)))
        values[counts == 0] = np.nan
        given = counts > 0
        means = np.where(given, values, 0.0).sum(axis=0) / np.where(given.any(axis=0), given.sum(axis=0), np.nan)
        return np.concatenate([means, values.ravel()])

    def log(self, episodes: Sequence[NDArray[np.float64]], metrics: Any, window: int) -> None:
        """Log the means of the newest episodes under RLlib's names.

        Args:
            episodes: What :meth:`result` gave of each, NaN where an episode did not tell a number.
            metrics: RLlib's logger.
            window: How many episodes count.
        """
        values = np.stack(episodes[-window:])
        counts = (~np.isnan(values)).sum(axis=0)
        means = np.nansum(values, axis=0) / np.maximum(counts, 1)
        for key, mean, count in zip(self.keys, means.tolist(), counts.tolist(), strict=True):
            if count:
                metrics.log_value((CUSTOM, *key), mean, reduce="mean", window=window)


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float, np.bool_, np.number)) and not isinstance(value, np.complexfloating)


def _tabulate(infos: Sequence[Mapping[str, Any]]) -> tuple[list[str], NDArray[np.float64]]:
    """Return the numeric names and their values, shape (steps, names), NaN where one is missing."""
    names = [str(name) for name, value in infos[-1].items() if _is_number(value)]
    if names and all(len(info) == len(infos[-1]) for info in infos):
        pick = itemgetter(*names)
        try:
            return names, np.array([pick(info) for info in infos], dtype=float).reshape(len(infos), len(names))
        except (KeyError, TypeError, ValueError):
            pass
    every = sorted({str(name) for info in infos for name, value in info.items() if _is_number(value)})
    rows = [[float(info[name]) if _is_number(info.get(name)) else np.nan for name in every] for info in infos]
    return every, np.array(rows, dtype=float).reshape(len(infos), len(every))


MAX_REBUILDS = 5


class GridMetricsCallback(RLlibCallback):
    """Log every numeric info as ``env_runners/custom/<name>`` and ``env_runners/custom/<agent>/<name>``.

    An episode counts when it ends; the metric is the mean of the newest episodes (RLlib's
    ``metrics_num_episodes_for_smoothing``, 100).
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, EpisodeTotals] = {}
        self._made = 0

    def on_environment_created(
        self, *, env_runner: Any, metrics_logger: Any = None, env: Any, env_context: Any, **kwargs: Any
    ) -> None:
        """Stop where environments only fail: RLlib would make them anew for ever within one sample."""
        self._made += 1
        if self._made > MAX_REBUILDS:
            raise PowerGridError(f"the environment failed {self._made - 1} times in a row")

    def on_sample_end(
        self, *, env_runner: Any = None, metrics_logger: Any = None, samples: Any, worker: Any = None, **kwargs: Any
    ) -> None:
        """Add the sampled pieces to their episodes and log those that ended."""
        # once a sample: on_episode_step would take Python's time at every step, and on_episode_end sees only the last
        # piece of an episode that was cut between two samples
        window = env_runner.config.metrics_num_episodes_for_smoothing
        self._made = 0
        if getattr(env_runner, "logs_infos", False):  # summed up while sampling: the episodes hold no infos
            return
        still_open: dict[str, EpisodeTotals] = {}
        for episode in samples:
            totals = still_open.get(episode.id_) or self._open.get(episode.id_) or EpisodeTotals()
            for agent, piece in episode.agent_episodes.items():
                # Entry 0 is the reset's, or the last of the piece before.
                totals.add(str(agent), piece.get_infos()[1:])
            if episode.is_done:
                for name, value in totals.result().items():
                    metrics_logger.log_value((CUSTOM, *name.split("/", 1)), value, reduce="mean", window=window)
            else:
                still_open[episode.id_] = totals
        self._open = still_open

    def on_train_result(
        self, *, algorithm: Any, metrics_logger: Any = None, result: dict[str, Any], **kwargs: Any
    ) -> None:
        """Add the names that older RLlib versions had at the top of the result."""
        result[RETURN_ALIAS] = result.get("env_runners", {}).get("episode_return_mean", float("nan"))
        for name in LEARNER_ALIASES:
            result[name] = mean_over_policies(result, name)


def mean_over_policies(result: dict[str, Any], name: str) -> float:
    """Average one learner metric over the policies; NaN where none reports it."""
    learners = result.get("learners", {})
    values = [float(m[name]) for policy, m in learners.items() if policy != "__all_modules__" and name in m]
    return sum(values) / len(values) if values else float("nan")
