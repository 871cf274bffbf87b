"""What a runner samples, as columns over time, and its way into RLlib's episodes and metrics; it steps nothing."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tree
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils import metrics as names

_Episode: Any = MultiAgentEpisode  # whose own types are not for export
AgentEpisode: Any = SingleAgentEpisode


class Episode(_Episode):  # type: ignore[misc]
    """RLlib's episode, with its agents in their order: the batch that is learnt from follows it.

    RLlib's own gives a set of them, whose order is another one in each process: with the same seed minibatches would be
    of other rows each time.
    """

    @property
    def agent_ids(self) -> Any:
        """The agents, in their order."""
        return dict.fromkeys(self.agent_episodes).keys()

    def get_agents_that_stepped(self) -> Any:
        """Return the agents that see something after the last step, in their order."""
        return dict.fromkeys(self.get_observations(-1)).keys()


Buffer: Any = InfiniteLookbackBuffer

OBSERVATIONS, ACTIONS, REWARDS, INFOS = "obs", "actions", "rewards", "infos"


class Trajectories:
    """Keep what all environments did since the last sample, step by step, and cut episodes out of it.

    A column is an array (n_envs, steps, ...), or a structure of them, by agent. All environments share the time axis;
    where each one's episode begins on it is ``begin``. Nobody writes into a column: episodes hold slices of them.

    Args:
        n_envs: Number of environments.
        lookback: Steps before the beginning that an episode which goes on may look back to.
    """

    def __init__(self, n_envs: int, lookback: int) -> None:
        self._lookback = lookback
        self._columns: dict[str, dict[str, Any]] = {}
        self._waiting: dict[tuple[str, tuple[str, ...]], list[Any]] = {}
        self.t = 0
        self.begin = np.zeros(n_envs, dtype=np.int64)
        self.behind = np.zeros(n_envs, dtype=np.int64)  # steps of the same episode before ``begin``, up to lookback
        self._infos: list[Sequence[Mapping[str, Any]]] = []

    def add(self, name: str, agents: tuple[str, ...], values: Any) -> None:
        """Keep what agents have at the present step in all environments.

        Args:
            name: The column.
            agents: The agents, the same ones in the same order at each step.
            values: An array of shape (n_envs, n_agents, ...), or a structure of them, that nobody writes into later.
        """
        self._waiting.setdefault((name, agents), []).append(values)

    def add_infos(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Keep the infos seen before the present step, one mapping by agent for each environment."""
        self._infos.append(infos)

    def advance(self) -> None:
        """Go on to the next step."""
        self.t += 1

    def _write_waiting(self) -> None:
        """Write the steps that wait behind the others: once for many costs a fraction of each by itself."""
        for (name, agents), steps in self._waiting.items():
            if not steps:
                continue
            columns = self._columns.setdefault(name, {})
            stacked = tree.map_structure(lambda *parts: np.stack(parts, axis=1), *steps)  # (n_envs, steps, agents, ...)
            for i, agent in enumerate(agents):
                parts = [columns[agent]] if agent in columns else []
                parts.append(tree.map_structure(lambda values, i=i: values[:, :, i], stacked))
                columns[agent] = tree.map_structure(lambda *parts: np.concatenate(parts, axis=1), *parts)
            steps.clear()

    def succeed(self) -> Trajectories:
        """Return what goes on from here, with the last steps to look back to."""
        self._write_waiting()
        after = Trajectories(len(self.begin), self._lookback)
        after.t = kept = min(self.t, self._lookback)
        after.begin[:] = kept
        after.behind = np.minimum(self.t - self.begin + self.behind, kept)
        after._columns = tree.map_structure(lambda column: column[:, self.t - kept :], self._columns)
        after._infos = self._infos[len(self._infos) - kept :] if self._infos else []
        return after

    def length(self, env: int) -> int:
        """Return the steps of an environment's present episode since the last sample."""
        return int(self.t - self.begin[env])

    def fill(
        self,
        episode: Any,
        env: int,
        final: Mapping[str, Any],
        final_infos: Mapping[str, Any] | None,
        *,
        terminated: bool = False,
        truncated: bool = False,
    ) -> None:
        """Put an environment's steps since the last sample into its episode.

        Args:
            episode: The episode as its reset or :func:`succeed_episode` left it.
            env: The environment.
            final: What agents see after the last step, each of shape (n_observed,).
            final_infos: Their infos after the last step; None leaves infos empty.
            terminated: Whether the episode ended in a state of its own.
            truncated: Whether it was cut off by the environment.
        """
        self._write_waiting()
        n, back = self.length(env), int(self.behind[env])
        rows = slice(int(self.begin[env]) - back, self.t)
        for agent, own in episode.agent_episodes.items():
            before = self._columns[OBSERVATIONS][agent][env, rows]
            _put(own.observations, np.concatenate([before, final[agent][None]]), back)
            _put(own.actions, tree.map_structure(lambda column: column[env, rows], self._columns[ACTIONS][agent]), back)
            _put(own.rewards, self._columns[REWARDS][agent][env, rows], back)
            own.infos.data = self._read_infos(agent, env, rows, final_infos)
            own.infos.lookback = back
            own.extra_model_outputs = {
                name: Buffer(data=tree.map_structure(lambda own: own[env, rows], columns[agent]), lookback=back)
                for name, columns in self._columns.items()
                if name not in (OBSERVATIONS, ACTIONS, REWARDS) and agent in columns
            }
            own.t = own.t_started + n
            own.is_terminated, own.is_truncated = terminated, truncated
            steps = episode.env_t_to_agent_t[agent]  # where RLlib looks an agent's step up; all are in every one
            steps.data = list(range(own.t_started - back, own.t + 1))
            steps.lookback = back
        episode.env_t = episode.env_t_started + n
        episode.is_terminated, episode.is_truncated = terminated, truncated

    def _read_infos(self, agent: str, env: int, rows: slice, final_infos: Mapping[str, Any] | None) -> list[Any]:
        if final_infos is None:
            return [{} for _ in range(rows.stop - rows.start + 1)]
        return [*(infos[env][agent] for infos in self._infos[rows]), final_infos[agent]]

    def restart(self, env: int) -> None:
        """Let an environment's next episode begin at the present step."""
        self.begin[env], self.behind[env] = self.t, 0


def succeed_episode(episode: Any) -> Any:
    """Return the piece that follows a piece of an episode, to be filled by the next sample."""
    after = Episode(
        id_=episode.id_,
        observation_space=episode.observation_space,
        action_space=episode.action_space,
        env_t_started=episode.env_t,
        agent_t_started={agent: own.t for agent, own in episode.agent_episodes.items()},
        agent_module_ids={agent: own.module_id for agent, own in episode.agent_episodes.items()},
        agent_to_module_mapping_fn=episode.agent_to_module_mapping_fn,
    )
    for agent, own in episode.agent_episodes.items():
        piece = AgentEpisode(
            id_=own.id_,
            agent_id=agent,
            module_id=own.module_id,
            multi_agent_episode_id=episode.id_,
            observation_space=own.observation_space,
            action_space=own.action_space,
            t_started=own.t,
        )
        after.agent_episodes[agent] = piece
    # what callbacks keep of an episode goes on with it, and the piece that was sampled keeps what it had
    after.custom_data.update(copy.deepcopy(episode.custom_data))
    return after


def _put(buffer: Any, data: Any, lookback: int) -> None:
    buffer.data, buffer.lookback, buffer.finalized = data, lookback, True  # arrays: RLlib's to_numpy() leaves them


class EpisodeRecords:
    """Gather lengths, returns and durations of episodes that ended, and log them at once under RLlib's names."""

    def __init__(self) -> None:
        self._ended: list[dict[str, Any]] = []  # what each episode amounts to, by RLlib's names

    def add(self, episode: Any, earlier: Sequence[Any], took_s: float) -> None:
        """Take in an episode that ended.

        Args:
            episode: Its last piece.
            earlier: The pieces of it that were sampled before.
            took_s: How long it took [s].
        """
        pieces = [*earlier, episode]
        returns, steps, modules = (defaultdict[str, float](float) for _ in range(3))
        for agent, own in (entry for piece in pieces for entry in piece.agent_episodes.items()):
            gained = float(own.get_return())
            returns[str(agent)] += gained
            steps[str(agent)] += len(own)
            modules[own.module_id] += gained
        self._ended.append(
            {
                names.EPISODE_LEN_MEAN: sum(map(len, pieces)),
                names.EPISODE_RETURN_MEAN: sum(returns.values()),
                names.EPISODE_DURATION_SEC_MEAN: took_s,
                names.EPISODE_AGENT_RETURN_MEAN: dict(returns),
                names.EPISODE_AGENT_STEPS: dict(steps),
                names.EPISODE_MODULE_RETURN_MEAN: dict(modules),
            }
        )

    def log(self, metrics: Any, config: Any) -> None:
        """Log means, least and most of the newest episodes, and forget them all.

        Args:
            metrics: RLlib's logger of the runner.
            config: The runner's configuration, which says how many episodes count.
        """
        if not self._ended:
            return
        # what runners log is merged, so each logs its share of the episodes that count
        window = max(1, math.ceil(config.metrics_num_episodes_for_smoothing / (config.num_env_runners or 1)))
        newest = self._ended[-window:]
        metrics.log_dict(tree.map_structure(lambda *values: float(np.mean(values)), *newest), window=window)
        for extreme, least, most in (
            (names.EPISODE_LEN_MEAN, names.EPISODE_LEN_MIN, names.EPISODE_LEN_MAX),
            (names.EPISODE_RETURN_MEAN, names.EPISODE_RETURN_MIN, names.EPISODE_RETURN_MAX),
        ):
            values = [ended[extreme] for ended in newest]
            metrics.log_value(least, min(values), reduce="min", window=window)
            metrics.log_value(most, max(values), reduce="max", window=window)
        self._ended.clear()


def log_steps(metrics: Any, steps: int, ended: int, agents: Sequence[str], policies: Mapping[str, int]) -> None:
    """Count what was sampled under the stock runner's names, at once for many steps.

    Args:
        metrics: RLlib's logger of the runner.
        steps: Steps of environments; none are logged as RLlib logs none.
        ended: Episodes that ended.
        agents: The agents, each of whom is in every step.
        policies: How many agents each policy acts for.
    """
    if not steps:
        return

    def count(now: Any, lifetime: Any, value: int, **options: bool) -> None:
        metrics.log_value(now, value, reduce="sum")
        metrics.log_value(lifetime, value, reduce="lifetime_sum", **options)

    count(names.NUM_ENV_STEPS_SAMPLED, names.NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, with_throughput=True)
    if ended:
        count(names.NUM_EPISODES, names.NUM_EPISODES_LIFETIME, ended)
    for agent in agents:
        count((names.NUM_AGENT_STEPS_SAMPLED, agent), (names.NUM_AGENT_STEPS_SAMPLED_LIFETIME, agent), steps)
    for policy, mates in policies.items():
        now, lifetime = (names.NUM_MODULE_STEPS_SAMPLED, policy), (names.NUM_MODULE_STEPS_SAMPLED_LIFETIME, policy)
        count(now, lifetime, steps * mates)
