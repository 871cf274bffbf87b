"""GridEnvRunner: RLlib's multi-agent runner on the vector environment, array code in place of its steps in Python."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core.columns import Columns
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import ENV_STEP_FAILURE
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils import metrics as names
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from powergrid.envs.networked import NetworkedGridEnv
from powergrid.scenario import scenario_from_config
from powergrid.training.rllib import episodes
from powergrid.training.rllib.agents import AgentMapping
from powergrid.training.rllib.environments import GridVectorMultiAgentEnv
from powergrid.training.rllib.episodes import EpisodeRecords, Trajectories
from powergrid.training.rllib.metrics import CUSTOM, GridMetricsCallback, RunningTotals
from powergrid.training.rllib.modules import PolicyActor, pick_agent

logger = logging.getLogger("powergrid.training")

_StockRunner: Any = MultiAgentEnvRunner
_DEFAULT_PIECES = (
    ("AddObservationsFromEpisodesToBatch", "AddTimeDimToBatchAndZeroPad", "AddStatesFromEpisodesToBatch",
     "AgentToModuleMapping", "BatchIndividualItems", "NumpyToTensor"),
    ("GetActions", "TensorToNumpy", "UnBatchToIndividualItems", "ModuleToAgentUnmapping",
     "RemoveSingleTsTimeRankFromBatch", "NormalizeAndClipActions", "ListifyDataForVectorEnv"),
)  # fmt: skip
HORIZON_ROOM = 128  # steps to make room for where only a number of episodes is known
_SEES_EPISODES = ("on_episode_created", "on_episode_start", "on_episode_end", "on_sample_end")


class GridEnvRunner(_StockRunner):  # type: ignore[misc]
    """Sample as RLlib's ``MultiAgentEnvRunner`` does, several times as fast, where the environment is a powergrid one.

    One forward pass for each policy serves all its agents in all environments. Episodes reach the learner as RLlib's
    own objects, made of slices of arrays; metrics, callbacks, evaluation, checkpoints and fault tolerance are RLlib's.
    Infos are put into episodes only where a callback or a learner connector of the user's may read them.

    Plug it in with ``config.env_runners(env_runner_cls=GridEnvRunner)``. Where it cannot do the same as the stock
    runner (another environment, connectors of the user's, policies with state, callbacks at every step) it says why
    once and samples by the stock runner's code.
    """

    env: Any
    num_envs: int
    _ongoing_episodes: list[Any]
    _track: Trajectories

    def __init__(self, config: Any, **kwargs: Any) -> None:
        self._bound_to: Any = None
        self._by_arrays: bool | None = None  # how the last sample was taken
        self._slow_because: str | None = None
        self._totals: RunningTotals | None = None
        self._info_metrics: list[npt.NDArray[np.float64]] = []  # of the episodes that ended since the last metrics
        super().__init__(config, **kwargs)
        self._slow_because = self._find_obstacle() if self.env is not None else None
        if self._slow_because:
            logger.warning("Sampling by RLlib's own, slower runner: %s.", self._slow_because)
        connector = self.config._learner_connector
        self._keep_infos = self._callbacks_see_episodes() or getattr(connector, "reads_infos", connector is not None)
        self._bind_policies()

    # -- building

    def make_env(self) -> None:
        """Make the vector environment, or what the stock runner makes where the environment is not ours."""
        context = self._env_context()
        scenario = self._find_scenario(context)
        if scenario is None:
            super().make_env()
            return
        if self.env is not None:
            self.env.close()
        self.env = GridVectorMultiAgentEnv(scenario, self.config.num_envs_per_env_runner, context.worker_index)
        self.num_envs = self.env.num_envs
        self._needs_initial_reset = True
        make_callback(
            "on_environment_created",
            callbacks_objects=self._callbacks,
            callbacks_functions=self.config.callbacks_on_environment_created,
            kwargs={
                "env_runner": self,
                "metrics_logger": self.metrics,
                "env": self.env.unwrapped,
                "env_context": context,
            },
        )

    def _env_context(self) -> Any:
        given = self.config.env_config
        if isinstance(given, EnvContext):
            return given
        return EnvContext(given, worker_index=self.worker_index or 0, num_workers=self.config.num_env_runners)

    def _find_scenario(self, context: Any) -> Any:
        """Return the scenario where the environment is NetworkedGridEnv itself on one feeder, else None."""
        if self.config.env is not NetworkedGridEnv:
            return None
        scenario = scenario_from_config(context)
        return None if scenario.feeders else scenario

    def _find_obstacle(self) -> str | None:
        """Say why sampling by arrays would not do the same as the stock runner; None where it would."""
        config = self.config
        if not isinstance(self.env, GridVectorMultiAgentEnv):
            return f"the environment is {getattr(config.env, '__name__', config.env)!r}, not NetworkedGridEnv itself"
        for pipeline, expected in zip((self._env_to_module, self._module_to_env), _DEFAULT_PIECES, strict=True):
            pieces = tuple(type(piece).__name__ for piece in pipeline.connectors)
            if pieces != expected:
                own = [piece for piece in pieces if piece not in expected]
                return f"connectors are not RLlib's defaults ({', '.join(own) or 'some are left out'})"
        if not isinstance(config.policy_mapping_fn, AgentMapping):
            return "policy_mapping_fn is not of powergrid.training and may map an agent differently in each episode"
        if self.module is None or any(self.module[name].is_stateful() for name in self.module.keys()):  # noqa: SIM118
            return "a policy has a state between steps"
        if self._overrides("on_episode_step"):
            return "a callback wants every step of an episode (on_episode_step)"
        if config.count_steps_by != "env_steps" or not config.episodes_to_numpy:
            return "count_steps_by or episodes_to_numpy is not RLlib's default"
        return None

    def _overrides(self, hook: str) -> bool:
        """Whether a callback of the user's is there for a hook."""
        default = getattr(RLlibCallback, hook)
        ours = getattr(GridMetricsCallback, hook)
        classes = [type(each) for each in self._callbacks]
        return bool(getattr(self.config, f"callbacks_{hook}", None)) or any(
            getattr(each, hook) not in (default, ours) for each in classes
        )

    def _callbacks_see_episodes(self) -> bool:
        return any(self._overrides(hook) for hook in _SEES_EPISODES)

    def _bind_policies(self) -> None:
        """Find which agents each policy acts for, in RLlib's order, and their actions' spaces."""
        if self.env is None or self._slow_because:
            return
        self._agents = self.env.vector.possible_agents
        self._mates: dict[str, list[str]] = {}
        for agent in self._agents:
            self._mates.setdefault(self.config.policy_mapping_fn(agent), []).append(agent)
        for policy in self._mates:
            if isinstance(self.module[policy], torch.nn.Module):
                self.module[policy].eval()  # which acting always is; else RLlib goes to and fro at every step
        self._make_actors()
        self._bound_to = self.env.vector
        if any(isinstance(each, GridMetricsCallback) for each in self._callbacks):
            self._totals = RunningTotals(self.num_envs, self._agents, [*self.env.vector.info_names, "day"])

    def _make_actors(self) -> None:
        self._actors = {
            policy: PolicyActor(
                self.module[policy],
                mates,
                self.env.single_action_spaces[mates[0]],
                self._device,
                normalize=self.config.normalize_actions,
                clip=self.config.clip_actions,
            )
            for policy, mates in self._mates.items()
        }
        self._prepare_actors()

    def _prepare_actors(self) -> None:
        for actor in self._actors.values():
            actor.prepare()

    # -- sampling

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Any]:
        by_arrays = not self._slow_because and not random_actions
        force_reset = force_reset or (self._by_arrays is not None and by_arrays != self._by_arrays)
        self._by_arrays = by_arrays
        if not by_arrays:
            stock: list[Any] = super()._sample(
                num_timesteps=num_timesteps,
                num_episodes=num_episodes,
                explore=explore,
                random_actions=random_actions,
                force_reset=force_reset,
            )
            return stock
        if force_reset or num_episodes is not None or self._needs_initial_reset:
            self._start_all()
        self._needs_initial_reset = num_episodes is not None
        room = HORIZON_ROOM if num_timesteps is None else -(-num_timesteps // self.num_envs)
        self._track = self._track.succeed(max(1, room))
        self._prepare_actors()
        self._stepped = self._ended = 0
        done: list[Any] = []
        taken = 0
        while taken < num_timesteps if num_timesteps is not None else len(done) < (num_episodes or 0):
            if not self._restart_over():
                taken = 0
                continue
            with self.metrics.log_time(names.RLMODULE_INFERENCE_TIMER):
                actions = self._act(explore, taken)
            results = self._try_env_step(actions)
            if results == ENV_STEP_FAILURE:
                self._start_all()
                taken = 0
                continue
            over, terminated = self._take(*results)
            taken += self.num_envs
            if over.any():
                self._end_episodes(over, terminated, done, num_episodes)
        self._log_steps()
        self._done_episodes_for_metrics.extend(done)
        return done + (self._cut() if num_timesteps is not None else [])

    def _start_all(self) -> None:
        """Reset all environments and begin an episode in each; what was under way is dropped, as RLlib does."""
        if self.env.vector is not self._bound_to:
            self._bind_policies()
        self._ongoing_episodes = [None] * self.num_envs
        self._shared_data: dict[str, Any] = {}
        for env in range(self.num_envs):
            self._new_episode(env)
        self._ongoing_episodes_for_metrics.clear()
        rows, infos = self._try_env_reset(seed=self._seed if self._needs_initial_reset else None, options=None)
        self._needs_initial_reset = False
        self._track = Trajectories(self.num_envs, 1, self.config.episode_lookback_horizon)
        self._over = np.zeros(self.num_envs, dtype=bool)
        self._seen = {agent: np.stack([row[agent] for row in rows]) for agent in self._agents}
        self._infos = list(infos)
        for env in range(self.num_envs):
            self._start_episode(env)

    def _start_episode(self, env: int) -> None:
        """Let an environment's new episode begin with what its agents see now."""
        episodes.start_episode(
            self._ongoing_episodes[env],
            {agent: seen[env] for agent, seen in self._seen.items()},
            self._infos[env] if self._keep_infos else {},
        )
        self._track.restart(env)
        if self._totals is not None:
            self._totals.clear(env)
        self._make_on_episode_callback("on_episode_start", env, self._ongoing_episodes)

    def _restart_over(self) -> bool:
        """Reset the environments that are over; False where that failed and all of them were made anew."""
        if not self._over.any():
            return True
        try:
            with self.metrics.log_time(names.ENV_RESET_TIMER):
                self._seen, _ = self.env.reset(options={"reset_mask": self._over})
        except Exception:
            if not self.config.restart_failed_sub_environments:
                raise
            logger.exception("Resetting environments failed; all of this runner's are made anew.")
            self.make_env()
            self._start_all()
            return False
        for env in np.flatnonzero(self._over).tolist():
            if self._keep_infos:
                self._infos[env] = self.env.infos(env)
            self._start_episode(env)
        self._over[:] = False
        return True

    def _act(self, explore: bool, taken: int) -> dict[str, Any]:
        """Let every policy act once for all its agents; keep what it gave and give the actions for the environment."""
        runners = self.config.num_env_runners or 1
        lifetime = (self.num_env_steps_sampled_lifetime // runners + taken) * runners
        for_env: dict[str, Any] = {}
        for actor in self._actors.values():
            agents = actor.agents
            seen = np.stack([self._seen[agent] for agent in agents], axis=1)
            columns = actor.act(seen, explore=explore, t=lifetime)
            played = columns.pop(Columns.ACTIONS_FOR_ENV)
            for i, agent in enumerate(agents):
                for_env[agent] = pick_agent(played, i)
            self._track.add(episodes.OBSERVATIONS, agents, seen)
            for name, values in columns.items():
                self._track.add(name, agents, values)
            self._track.add(WEIGHTS_SEQ_NO, agents, np.full(seen.shape[:2], self._weights_seq_no))
        return for_env

    def _take(
        self, observations: Any, rewards: Any, terminated: Any, truncated: Any, _: Any
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Keep what a step gave; give which environments are over and which by a state of their own."""
        self._track.add(episodes.REWARDS, tuple(self._agents), rewards)
        if self._keep_infos:
            self._track.add_infos(self._infos)
            self._infos = [self.env.infos(env) for env in range(self.num_envs)]
        if self._totals is not None:
            self._totals.add(self.env.vector.infos(), self.env.vector.days)
        self._track.advance()
        self._seen = observations
        self._stepped += 1
        return terminated | truncated, terminated

    def _end_episodes(
        self, over: npt.NDArray[np.bool_], terminated: npt.NDArray[np.bool_], done: list[Any], at_most: int | None
    ) -> None:
        """Fill the episodes that are over and begin new ones."""
        self._ended += int(np.count_nonzero(over))
        for env in np.flatnonzero(over).tolist():
            self._fill(env, terminated=bool(terminated[env]), truncated=not terminated[env])
            self._make_on_episode_callback("on_episode_end", env, self._ongoing_episodes)
            done.append(self._ongoing_episodes[env])
            if self._totals is not None:
                self._info_metrics.append(self._totals.result(env))
            self._new_episode(env)
            self._over[env] = True
            if at_most is not None and len(done) >= at_most:
                break

    def _fill(self, env: int, **ends: bool) -> None:
        final = {agent: seen[env] for agent, seen in self._seen.items()}
        infos = self._infos[env] if self._keep_infos else None
        self._track.fill(self._ongoing_episodes[env], env, final, infos, **ends)

    def _cut(self) -> list[Any]:
        """Return the pieces of the episodes that are under way, and go on with new pieces of them."""
        pieces: list[Any] = []
        for env, episode in enumerate(self._ongoing_episodes):
            if self._over[env] or not self._track.length(env):
                continue  # nothing in it yet
            self._fill(env)
            self._ongoing_episodes[env] = episodes.succeed_episode(episode)
            self._ongoing_episodes_for_metrics[episode.id_].append(episode)
            pieces.append(episode)
        return pieces

    # -- metrics

    @property
    def logs_infos(self) -> bool:
        """Whether the infos of the last sample's episodes are logged here, and not in the episodes."""
        return bool(self._by_arrays) and self._totals is not None

    def get_metrics(self) -> Any:
        """Return the metrics since the last call: RLlib's, and those of the infos."""
        if self._by_arrays:
            records = EpisodeRecords(self._done_episodes_for_metrics, self._ongoing_episodes_for_metrics)
            records.log(self.metrics, self.config)
            self._done_episodes_for_metrics.clear()
        if self._info_metrics and self._totals is not None:
            window = self.config.metrics_num_episodes_for_smoothing
            values = np.stack(self._info_metrics[-window:])
            given = ~np.isnan(values)
            counts = given.sum(axis=0)
            means = np.where(given, values, 0.0).sum(axis=0) / np.maximum(counts, 1)
            for key, mean, count in zip(self._totals.keys, means.tolist(), counts.tolist(), strict=True):
                if count:
                    self.metrics.log_value((CUSTOM, *key), mean, reduce="mean", window=window)
        self._info_metrics.clear()
        return super().get_metrics()

    def _log_steps(self) -> None:
        """Count steps under the stock runner's names, once for a sample."""
        steps = self._stepped * self.num_envs
        if not steps:
            return
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)
        self._count(names.NUM_ENV_STEPS_SAMPLED, names.NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, with_throughput=True)
        if self._ended:
            self._count(names.NUM_EPISODES, names.NUM_EPISODES_LIFETIME, self._ended)
        for agent in self._agents:
            self._count((names.NUM_AGENT_STEPS_SAMPLED, agent), (names.NUM_AGENT_STEPS_SAMPLED_LIFETIME, agent), steps)
        for policy, mates in self._mates.items():
            self._count(
                (names.NUM_MODULE_STEPS_SAMPLED, policy),
                (names.NUM_MODULE_STEPS_SAMPLED_LIFETIME, policy),
                steps * len(mates),
            )

    def _count(self, now: Any, lifetime: Any, value: int, **options: bool) -> None:
        self.metrics.log_value(now, value, reduce="sum")
        self.metrics.log_value(lifetime, value, reduce="lifetime_sum", **options)
