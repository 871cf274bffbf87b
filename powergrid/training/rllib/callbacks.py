"""The RLlib callback that turns the environment's infos into metrics; it changes nothing in training."""

from __future__ import annotations

from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback

from powergrid.errors import PowerGridError
from powergrid.training.rllib.metrics import CUSTOM, LEARNER_ALIASES, RETURN_ALIAS, EpisodeTotals

MAX_REBUILDS = 5


class GridMetricsCallback(RLlibCallback):
    """Log every numeric info as ``env_runners/custom/<name>`` and ``env_runners/custom/<agent>/<name>``.

    An episode counts when it ends; the metric is the mean of the newest episodes (RLlib's
    ``metrics_num_episodes_for_smoothing``, 100). The work is done once per ``sample()`` on the
    pieces of episodes it returns: 'on_episode_step' would cost Python time at every step, and
    'on_episode_end' sees only the last piece of an episode cut between two samples.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, EpisodeTotals] = {}
        self._made = 0

    def on_environment_created(
        self, *, env_runner: Any, metrics_logger: Any = None, env: Any, env_context: Any, **kwargs: Any
    ) -> None:
        """Return up where environments only fail: RLlib would make them anew for ever within one sample."""
        self._made += 1
        if self._made > MAX_REBUILDS:
            raise PowerGridError(f"the environment failed {self._made - 1} times in a row")

    def on_sample_end(
        self, *, env_runner: Any = None, metrics_logger: Any = None, samples: Any, worker: Any = None, **kwargs: Any
    ) -> None:
        """Add the sampled pieces to their episodes and log those that ended."""
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
                self._log(totals.result(), metrics_logger, window)
            else:
                still_open[episode.id_] = totals
        self._open = still_open

    @staticmethod
    def _log(metrics: dict[str, float], metrics_logger: Any, window: int) -> None:
        for name, value in metrics.items():
            metrics_logger.log_value((CUSTOM, *name.split("/", 1)), value, reduce="mean", window=window)

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
