"""GridEnvRunner: RLlib's multi-agent runner on the vector environment, array code in place of its steps in Python."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils import metrics as names
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from powergrid.envs.networked import NetworkedGridEnv
from powergrid.errors import ScenarioError
from powergrid.scenario import scenario_from_config
from powergrid.training.rllib.learning.limits import COSTS
from powergrid.training.rllib.learning.same_days import SAME_DAY, seeds_of_days
from powergrid.training.rllib.metrics import GridMetricsCallback, RunningTotals
from powergrid.training.rllib.modules import PolicyActor, pick_agent
from powergrid.training.rllib.planning.policies import AgentMapping
from powergrid.training.rllib.sampling import episodes
from powergrid.training.rllib.sampling.environments import GridVectorMultiAgentEnv
from powergrid.training.rllib.sampling.episodes import EpisodeRecords, Trajectories, log_steps

logger = logging.getLogger("powergrid.training")

_StockRunner: Any = MultiAgentEnvRunner
_DEFAULT_PIECES = {
    "env_to_module": ("AddObservationsFromEpisodesToBatch", "AddTimeDimToBatchAndZeroPad",
                      "AddStatesFromEpisodesToBatch", "AgentToModuleMapping", "BatchIndividualItems", "NumpyToTensor"),
    "module_to_env": ("GetActions", "TensorToNumpy", "UnBatchToIndividualItems", "ModuleToAgentUnmapping",
                      "RemoveSingleTsTimeRankFromBatch", "NormalizeAndClipActions", "ListifyDataForVectorEnv"),
    "learner": ("AddObservationsFromEpisodesToBatch", "AddColumnsFromEpisodesToTrainBatch",
                "AddTimeDimToBatchAndZeroPad", "AddStatesFromEpisodesToBatch", "AgentToModuleMapping",
                "BatchIndividualItems", "NumpyToTensor"),
}  # fmt: skip
_SEES_EPISODES = ("on_episode_created", "on_episode_start", "on_episode_end", "on_sample_end")


def _find_obstacle(runner: Any) -> str | None:
    """Say why sampling by arrays would not do the same as the stock runner; None where it would."""
    config = runner.config
    if not isinstance(runner.env, GridVectorMultiAgentEnv):
        return f"the environment is {getattr(config.env, '__name__', config.env)!r}, not NetworkedGridEnv itself"
    for kind in ("env_to_module", "module_to_env"):
        build = getattr(config, f"build_{kind}_connector")
        pieces = tuple(type(piece).__name__ for piece in build(env=runner.env, spaces=runner.spaces).connectors)
        if pieces != _DEFAULT_PIECES[kind]:
            own = [piece for piece in pieces if piece not in _DEFAULT_PIECES[kind]]
            return f"connectors are not RLlib's defaults ({', '.join(own) or 'some are left out'})"
    if not isinstance(config.policy_mapping_fn, AgentMapping):
        return "policy_mapping_fn is not of powergrid.training and may map an agent differently in each episode"
    if runner.module is None:
        return "there are no policies"
    if runner.overrides("on_episode_step"):
        return "a callback wants every step of an episode (on_episode_step)"
    if config.count_steps_by != "env_steps" or not config.episodes_to_numpy:
        return "count_steps_by or episodes_to_numpy is not RLlib's default"
    return None


def _learner_reads_infos(config: Any) -> bool:
    """Whether a learner connector of the user's may read infos; one that says ``reads_infos = False`` does not."""
    pieces = config.build_learner_connector(None, None).connectors
    own = [piece for piece in pieces if type(piece).__name__ not in _DEFAULT_PIECES["learner"]]
    return any(getattr(piece, "reads_infos", True) for piece in own)


class GridEnvRunner(_StockRunner):  # type: ignore[misc]
    """Sample as RLlib's ``MultiAgentEnvRunner`` does, several times as fast, where the environment is a powergrid one.

    One forward pass for each policy serves all its agents in all environments. Episodes reach the learner as RLlib's
    own objects, made of slices of arrays; metrics, callbacks, evaluation, checkpoints and fault tolerance are RLlib's.
    Infos are put into episodes only where a callback or a learner connector of the user's may read them.

    Plug it in with ``config.env_runners(env_runner_cls=GridEnvRunner)``. Where it cannot do the same as the stock
    runner (another environment, connectors of the user's, callbacks at every step) it says why once and samples by the
    stock runner's code: see ``slow_because``.
    """

    env: Any
    num_envs: int
    _track: Trajectories

    def __init__(self, config: Any, **kwargs: Any) -> None:
        self._bound_to: Any = None
        self._by_arrays: bool | None = None  # how the last sample was taken
        self._never_reset = True
        self._totals: RunningTotals | None = None
        self._info_metrics: list[npt.NDArray[np.float64]] = []  # of the episodes that ended since the last metrics
        self._records = EpisodeRecords()
        self._version = 0  # RLlib's count of updates of the weights
        self._alike = int(config.learner_config_dict.get("envs_per_day", 1))  # environments that play the same day
        self._starts = 0
        super().__init__(config, **kwargs)
        #: Why the stock runner's code samples; None where arrays do.
        self.slow_because = _find_obstacle(self) if self.env is not None else None
        if self.slow_because:
            logger.warning("Sampling by RLlib's own, slower runner: %s.", self.slow_because)
            self._require_no_deadband()
        #: Whether episodes hold infos: to make dicts of them costs as much as the step of the environment.
        self.keeps_infos = self.overrides(*_SEES_EPISODES) or _learner_reads_infos(config)
        self._bind_policies()

    # -- building

    def make_env(self) -> None:
        """Make the vector environment, or what the stock runner makes where the environment is not ours."""
        given = self.config.env_config
        context: Any = (
            given
            if isinstance(given, EnvContext)
            else EnvContext(given, worker_index=self.worker_index or 0, num_workers=self.config.num_env_runners)
        )
        scenario = scenario_from_config(context) if self.config.env is NetworkedGridEnv else None
        if scenario is None:
            super().make_env()
            return
        if self.env is not None:
            self.env.close()
        # where seeds are given one by one, worker and place have their part in them already
        worker = context.worker_index if self._alike == 1 else None
        self.env = GridVectorMultiAgentEnv(scenario, self.config.num_envs_per_env_runner, worker)
        self.num_envs = self.env.num_envs
        self._never_reset = True
        self._call_back("on_environment_created", env_context=context)

    def set_state(self, state: Any) -> None:
        """Take up a state, and note which update its weights are of."""
        super().set_state(state)
        if COMPONENT_RL_MODULE in state:
            self._version = state.get(WEIGHTS_SEQ_NO, 0) or self._version

    def _require_no_deadband(self) -> None:
        """Raise where actions that are drawn are not what is played: RLlib's connectors play what is drawn."""
        proposed = (getattr(module, "proposed", None) for module in (self.module or {}).values())
        if any(each is not None and each.deadband for each in proposed):
            raise ScenarioError("training settings", [f"proposals_deadband: set it to 0, for {self.slow_because}"])

    def overrides(self, *hooks: str) -> bool:
        """Whether a callback of the user's is there for one of the hooks."""
        return any(
            getattr(self.config, f"callbacks_{hook}", None)
            or any(
                getattr(type(each), hook) not in (getattr(RLlibCallback, hook), getattr(GridMetricsCallback, hook))
                for each in self._callbacks
            )
            for hook in hooks
        )

    def _bind_policies(self) -> None:
        """Find which agents each policy acts for, and their actions' spaces."""
        if self.env is None or self.slow_because:
            return
        self._agents = self.env.vector.possible_agents
        mates: dict[str, list[str]] = {}
        for agent in self._agents:
            mates.setdefault(self.config.policy_mapping_fn(agent), []).append(agent)
        fitting = {"normalize": self.config.normalize_actions, "clip": self.config.clip_actions}
        self._actors = {
            policy: PolicyActor(self.module[policy], agents, self.env.single_action_spaces[agents[0]], **fitting)
            for policy, agents in mates.items()
        }
        self._bound_to = self.env.vector
        # a copy of these columns is made at each step, for the learner to take costs out of rewards
        limited = self.config.learner_config_dict.get("cost_limits", {"limits": {}})["limits"]
        self._limited = [self.env.vector.info_names.index(name) for name in limited]
        if any(isinstance(each, GridMetricsCallback) for each in self._callbacks):
            self._totals = RunningTotals(self.num_envs, self._agents, [*self.env.vector.info_names, "day"])

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
        by_arrays = not self.slow_because and not random_actions
        # neither way of sampling can go on with the other's episodes
        force_reset = force_reset or (self._by_arrays is not None and by_arrays != self._by_arrays)
        self._by_arrays = by_arrays
        if not by_arrays:
            how = {"explore": explore, "random_actions": random_actions, "force_reset": force_reset}
            stock: list[Any] = super()._sample(num_timesteps=num_timesteps, num_episodes=num_episodes, **how)
            return stock
        if force_reset or num_episodes is not None or self._never_reset:
            self._start_all()
        self._never_reset = num_episodes is not None  # whole episodes leave nothing that could go on
        self._track = self._track.succeed()
        self._stepped = self._ended = 0
        done: list[Any] = []
        taken = 0
        while taken < num_timesteps if num_timesteps is not None else len(done) < (num_episodes or 0):
            if not self._advance(explore, taken, done, num_episodes):
                taken = 0  # the environments failed and start anew: RLlib counts from there too
                continue
            taken += self.num_envs
        policies = {policy: len(actor.agents) for policy, actor in self._actors.items()}
        log_steps(self.metrics, self._stepped * self.num_envs, self._ended, self._agents, policies)
        return done + (self._cut() if num_timesteps is not None else [])

    def _advance(self, explore: bool, taken: int, done: list[Any], at_most: int | None) -> bool:
        """Play one step in every environment; False where they failed and were made anew."""
        results: Any = None
        with self._failures_survived():
            self._restart_over()
            with self.metrics.log_time(names.RLMODULE_INFERENCE_TIMER):
                actions = self._act(explore, taken)
            with self.metrics.log_time(names.ENV_STEP_TIMER):
                results = self.env.step(actions)
        if results is None:
            self._start_all()
            return False
        over, terminated = self._take(*results)
        self._ended += int(np.count_nonzero(over))  # RLlib counts those past the number asked for too
        for env in np.flatnonzero(over).tolist():
            if at_most is not None and len(done) >= at_most:
                break
            self._end_episode(env, bool(terminated[env]))
            done.append(self._ongoing[env])
            took_s = time.perf_counter() - self._began[env]
            self._records.add(done[-1], self._earlier.pop(done[-1].id_, ()), took_s)
            self._new_episode_in(env)
        return True

    @contextmanager
    def _failures_survived(self) -> Iterator[None]:
        """Make the environments anew where they fail, if the configuration says so, and count it as RLlib does."""
        try:
            yield
        except Exception as error:
            self.metrics.log_value(NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
            if not self.config.restart_failed_sub_environments:
                raise RuntimeError(f"an environment failed: {error}") from error
            logger.exception("Environments failed; all of this runner's are made anew.")
            self.make_env()

    def _start_all(self) -> None:
        """Reset all environments and begin an episode in each; what was under way is dropped, as RLlib does."""
        self._ongoing: list[Any] = [None] * self.num_envs
        self._earlier: dict[str, list[Any]] = {}  # pieces of episodes under way that were sampled before
        self._began = [0.0] * self.num_envs
        self._starts += 1
        self._played = [0] * self.num_envs
        for env in range(self.num_envs):
            self._new_episode_in(env)
        seen: Any = None
        while seen is None:  # RLlib tries for ever as well; GridMetricsCallback gives up after a few times
            if self.env.vector is not self._bound_to:
                self._bind_policies()
            with self._failures_survived(), self.metrics.log_time(names.ENV_RESET_TIMER):
                # worker by worker a seed of its own, as RLlib's runner takes it, and only at the very first reset
                seen, _ = self.env.reset_arrays(seed=self._first_seed())
        self._never_reset = False
        self._track = Trajectories(self.num_envs, self.config.episode_lookback_horizon)
        self._over = np.zeros(self.num_envs, dtype=bool)
        self._seen = seen
        self._infos: list[Any] = [self.env.infos(env) if self.keeps_infos else {} for env in range(self.num_envs)]
        for env in range(self.num_envs):
            self._start_episode(env)

    def _first_seed(self) -> Any:
        """Return what the streams of draws start from when all environments are reset; None to go on with them."""
        if self._alike == 1:
            return self._seed if self._never_reset else None
        worker, seed = self.worker_index or 0, self._seed
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        return seeds_of_days(seed, worker, self._starts, self.num_envs, self._alike)

    def _restart_over(self) -> None:
        """Reset the environments that are over."""
        if not self._over.any():
            return
        with self.metrics.log_time(names.ENV_RESET_TIMER):
            self._seen, _ = self.env.reset_arrays(over=self._over)
        for env in np.flatnonzero(self._over).tolist():
            if self.keeps_infos:
                self._infos[env] = self.env.infos(env)
            self._start_episode(env)
        self._over[:] = False

    def _act(self, explore: bool, taken: int) -> dict[str, Any]:
        """Let every policy act once for all its agents; keep what it said and return the environment's actions."""
        runners = self.config.num_env_runners or 1
        # RLlib's guess of what all runners have sampled: each as much as this one
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
            # of which RLlib's learner logs how old it is
            self._track.add(WEIGHTS_SEQ_NO, agents, np.full(seen.shape[:2], self._version))
        return for_env

    def _take(
        self, observations: Any, rewards: Any, terminated: Any, truncated: Any, _: Any
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Keep what a step brought; tell which environments are over and which by a state of their own."""
        self._track.add(episodes.REWARDS, tuple(self._agents), rewards)
        if self.keeps_infos:
            self._track.add_infos(self._infos)
            self._infos = [self.env.infos(env) for env in range(self.num_envs)]
        if self._totals is not None or self._limited:
            infos = self.env.vector.infos()
            if self._limited:
                self._track.add(COSTS, tuple(self._agents), infos[:, :, self._limited])
            if self._totals is not None:
                self._totals.add(infos, self.env.vector.days)
        self._track.advance()
        self._seen = observations
        self._stepped += 1
        return terminated | truncated, terminated

    # -- episodes

    def _new_episode_in(self, env: int) -> None:
        self._ongoing[env] = episodes.Episode(
            observation_space=self.env.single_observation_spaces,
            action_space=self.env.single_action_spaces,
            agent_to_module_mapping_fn=self.config.policy_mapping_fn,
        )
        if self._alike > 1:
            day = (self.worker_index or 0, self._starts, env // self._alike, self._played[env])
            self._ongoing[env].custom_data[SAME_DAY] = day
            self._played[env] += 1
        self._call_back("on_episode_created", env)

    def _start_episode(self, env: int) -> None:
        """Let an environment's new episode begin with what its agents see now, and nothing that was remembered."""
        for actor in self._actors.values():
            actor.forget(self.num_envs, env)
        self._ongoing[env].add_env_reset(
            observations={agent: seen[env] for agent, seen in self._seen.items()}, infos=self._infos[env]
        )
        self._track.restart(env)
        self._began[env] = time.perf_counter()
        if self._totals is not None:
            self._totals.clear(env)
        self._call_back("on_episode_start", env)

    def _end_episode(self, env: int, terminated: bool) -> None:
        # RLlib bootstraps the value of what follows only where an episode is truncated and not terminated
        self._fill(env, terminated=terminated, truncated=not terminated)
        self._call_back("on_episode_end", env, prev_episode_chunks=self._earlier.get(self._ongoing[env].id_, []))
        if self._totals is not None:
            self._info_metrics.append(self._totals.result(env))
        self._over[env] = True

    def _fill(self, env: int, **ends: bool) -> None:
        final = {agent: seen[env] for agent, seen in self._seen.items()}
        self._track.fill(self._ongoing[env], env, final, self._infos[env] if self.keeps_infos else None, **ends)

    def _cut(self) -> list[Any]:
        """Return the pieces of the episodes that are under way, and go on with new pieces of them."""
        pieces: list[Any] = []
        for env, episode in enumerate(self._ongoing):
            if self._over[env] or not self._track.length(env):
                continue  # nothing in it yet
            self._fill(env)
            self._ongoing[env] = episodes.succeed_episode(episode)
            self._earlier.setdefault(episode.id_, []).append(episode)
            pieces.append(episode)
        return pieces

    def _call_back(self, hook: str, env: int | None = None, **more: Any) -> None:
        """Call the user's callbacks of a hook with what RLlib's runner tells them."""
        told = {"env_runner": self, "metrics_logger": self.metrics, "env": self.env.unwrapped, **more}
        if env is not None:
            told |= {"episode": self._ongoing[env], "rl_module": self.module, "env_index": env}
        functions = getattr(self.config, f"callbacks_{hook}")
        make_callback(hook, callbacks_objects=self._callbacks, callbacks_functions=functions, kwargs=told)

    # -- metrics

    @property
    def logs_infos(self) -> bool:
        """Whether the infos of the last sample's episodes are logged here, and not in the episodes."""
        return bool(self._by_arrays) and self._totals is not None

    def get_metrics(self) -> Any:
        """Return the metrics since the last call: RLlib's, and those of the infos."""
        self._records.log(self.metrics, self.config)
        if self._info_metrics and self._totals is not None:
            self._totals.log(self._info_metrics, self.metrics, self.config.metrics_num_episodes_for_smoothing)
        self._info_metrics.clear()
        return super().get_metrics()
