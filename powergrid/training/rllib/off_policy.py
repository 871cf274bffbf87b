"""SAC and DQN as RLlib has them, learning from arrays of transitions in place of lists of episodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.dqn.dqn import DQN, DQNConfig
from ray.rllib.algorithms.sac.sac import SAC, SACConfig
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core import ALL_MODULES
from ray.rllib.core.distribution.torch.torch_distribution import TorchDeterministic, TorchSquashedGaussian
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils import metrics as names
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, TD_ERROR_KEY, TIMERS

from powergrid.training.rllib.sampling.processes import KeepsRunners, tolerate_faults

#: Columns as RLlib's learners of SAC and DQN read them.
OBS, NEXT_OBS, ACTIONS, REWARDS, TERMINATEDS, N_STEP, WEIGHTS = (
    "obs", "new_obs", "actions", "rewards", "terminateds", "n_step", "weights",
)  # fmt: skip


@dataclass
class TransitionBuffer:
    """Keep the newest transitions of one policy and draw from them uniformly.

    Args:
        capacity: Transitions to keep.
        n_step: Steps that a transition spans; fewer where the sampled piece of the episode ends before.
        gamma: Discount per step.
    """

    capacity: int
    n_step: int
    gamma: float
    size: int = field(default=0, init=False)
    _columns: dict[str, NDArray[Any]] = field(default_factory=dict, init=False)
    _next: int = field(default=0, init=False)

    def add(self, obs: NDArray[Any], actions: NDArray[Any], rewards: NDArray[Any], *, terminated: bool) -> None:
        """Add the steps of a piece of one agent's episode.

        Args:
            obs: What was observed before each step and after the last one, shape (steps + 1, width).
            actions: Actions as the policy gave them, shape (steps, ...).
            rewards: Shape (steps,).
            terminated: Whether the last step ended the episode for good; at the end of the horizon it did not.
        """
        steps = len(rewards)
        if not steps:
            return
        reaches = np.minimum(np.arange(steps) + self.n_step, steps)
        spans = reaches - np.arange(steps)
        returns = np.zeros(steps)
        for ahead in range(self.n_step):
            within = spans > ahead
            returns[within] += self.gamma**ahead * np.asarray(rewards)[ahead:][: int(within.sum())]
        self._write(
            {
                OBS: np.asarray(obs[:-1], np.float32),
                NEXT_OBS: np.asarray(obs, np.float32)[reaches],
                ACTIONS: np.asarray(actions),
                REWARDS: returns.astype(np.float32),
                TERMINATEDS: (reaches == steps) & terminated,
                # RLlib's learner discounts what follows by gamma to this power
                N_STEP: spans.astype(np.float32),
            }
        )

    def _write(self, rows: Mapping[str, NDArray[Any]]) -> None:
        count = min(len(rows[REWARDS]), self.capacity)
        places = (self._next + np.arange(count)) % self.capacity
        for name, values in rows.items():
            if name not in self._columns:
                self._columns[name] = np.zeros((self.capacity, *values.shape[1:]), values.dtype)
            self._columns[name][places] = values[-count:]
        self._next = int((self._next + count) % self.capacity)
        self.size = min(self.size + count, self.capacity)

    def sample(self, count: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Draw transitions, each as likely as any other, with replacement."""
        places = rng.integers(0, self.size, count)
        drawn = {name: values[places] for name, values in self._columns.items()}
        return {**drawn, WEIGHTS: np.ones(count, np.float32)}

    def get_state(self) -> dict[str, Any]:
        """Return what is kept."""
        columns = {name: values[: self.size].copy() for name, values in self._columns.items()}
        return {"columns": columns, "next": self._next, "size": self.size}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`get_state` gave."""
        self._columns.clear()
        self._next = self.size = 0
        if state["size"]:
            self._write(state["columns"])
        self._next = int(state["next"]) % self.capacity


@dataclass
class Replay:
    """The transitions of every policy: as many of each, over as many steps, drawn by a generator of their own."""

    capacity: int
    n_step: int
    gamma: float
    seed: int | None
    buffers: dict[str, TransitionBuffer] = field(default_factory=dict, init=False)
    env_steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def add(self, episodes: Iterable[Any]) -> int:
        """Add sampled multi-agent episodes, or pieces of them; give how many environment steps they have."""
        steps = 0
        for episode in episodes:
            steps += len(episode)
            for piece in episode.agent_episodes.values():
                self._buffer(piece.module_id).add(
                    np.asarray(piece.get_observations()),
                    np.asarray(piece.get_actions()),
                    np.asarray(piece.get_rewards()),
                    terminated=bool(piece.is_terminated),
                )
        self.env_steps += steps
        return steps

    def _buffer(self, policy: str) -> TransitionBuffer:
        if policy not in self.buffers:
            self.buffers[policy] = TransitionBuffer(self.capacity, self.n_step, self.gamma)
        return self.buffers[policy]

    def sample(self, count: int) -> dict[str, dict[str, NDArray[Any]]]:
        """Draw as many transitions of each policy."""
        return {name: buffer.sample(count, self._rng) for name, buffer in sorted(self.buffers.items())}

    def get_state(self) -> dict[str, Any]:
        """Return all that is kept, and where the draw stands."""
        return {
            "buffers": {name: buffer.get_state() for name, buffer in self.buffers.items()},
            "env_steps": self.env_steps,
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`get_state` gave."""
        self.buffers.clear()
        for name, kept in state["buffers"].items():
            self._buffer(name).set_state(kept)
        self.env_steps = int(state["env_steps"])
        self._rng.bit_generator.state = state["rng"]


_SAC: Any = SAC
_DQN: Any = DQN
_SACConfig: Any = SACConfig
_DQNConfig: Any = DQNConfig
_SACLearner: Any = SACTorchLearner
_SACModule: Any = DefaultSACTorchRLModule
_SquashedGaussian: Any = TorchSquashedGaussian
_REPLAY = "replay"


def _sample_once(runner: Any) -> tuple[list[Any], Any]:
    """Let an env runner sample; return its episodes and its metrics."""
    return runner.sample(), runner.get_metrics()


class ReplayTraining(KeepsRunners):
    """Sample, keep the transitions in arrays, and take as many gradient steps as the settings say.

    RLlib's own replay buffer makes an episode object of each transition that it draws, and learns from these: with it
    a whole iteration of SAC on IEEE 13 takes 1.75 times as long (1536 steps, 384 updates of 256 rows; Ray 2.60, one
    thread). What a gradient step does, and the order of things, is RLlib's.
    """

    config: Any
    metrics: Any
    env_runner_group: Any
    learner_group: Any
    replay: Replay
    _due: float

    def setup(self, config: Any) -> None:
        """Build what RLlib builds, and the replay."""
        self.replay = Replay(config.buffer_capacity, config.n_step, config.gamma, config.seed)
        self._due = 0.0
        super().setup(config)

    def training_step(self) -> None:
        """Sample once; take the gradient steps that are due; give the runners the new weights."""
        with self.metrics.log_time((TIMERS, names.ENV_RUNNER_SAMPLING_TIMER)):
            sampled = self.env_runner_group.foreach_env_runner(
                _sample_once,
                local_env_runner=self.env_runner_group.num_remote_env_runners() == 0,
                timeout_seconds=self.config.sample_timeout_s,
            )
        self.metrics.aggregate([results for _, results in sampled], key=ENV_RUNNER_RESULTS)
        episodes = [episode for part, _ in sampled for episode in part]
        with self.metrics.log_time((TIMERS, names.REPLAY_BUFFER_ADD_DATA_TIMER)):
            steps = self.replay.add(episodes)
        if self.replay.env_steps < self.config.learning_starts:
            return
        self._due += steps * self.config.updates_per_step
        updates, self._due = divmod(self._due, 1.0)
        for _ in range(int(updates)):
            self._update()
        if updates:
            with self.metrics.log_time((TIMERS, names.SYNCH_WORKER_WEIGHTS_TIMER)):
                self.env_runner_group.sync_weights(
                    from_worker_or_learner_group=self.learner_group,
                    policies=set(self.replay.buffers),
                    global_vars=None,
                    inference_only=True,
                )

    def _update(self) -> None:
        """Take one gradient step of every policy."""
        count = self.config.train_batch_size_per_learner
        with self.metrics.log_time((TIMERS, names.REPLAY_BUFFER_SAMPLE_TIMER)):
            drawn = self.replay.sample(count)
            batches = {
                name: SampleBatch({key: torch.from_numpy(values) for key, values in columns.items()})
                for name, columns in drawn.items()
            }
            batch = MultiAgentBatch(batches, env_steps=count)
        with self.metrics.log_time((TIMERS, names.LEARNER_UPDATE_TIMER)):
            lifetime = names.NUM_ENV_STEPS_SAMPLED_LIFETIME
            agents_lifetime = names.NUM_AGENT_STEPS_SAMPLED_LIFETIME
            results = self.learner_group.update(
                batch=batch,
                timesteps={  # by which RLlib's schedules run, and DQN copies to its target network
                    lifetime: self.metrics.peek((ENV_RUNNER_RESULTS, lifetime)),
                    agents_lifetime: self.metrics.peek((ENV_RUNNER_RESULTS, agents_lifetime), default={}),
                },
            )
            for result in results:
                for name in set(result) - {ALL_MODULES}:
                    result[name].pop(TD_ERROR_KEY, None)  # an array; the loss has used it
            self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state, with the replay where checkpoints shall hold it."""
        state: dict[str, Any] = super().get_state(components, not_components=not_components, **kwargs)  # type: ignore[misc]
        if self.config.store_buffer:
            state[_REPLAY] = {"transitions": self.replay.get_state(), "due": self._due}
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up a state; a replay that it does not hold is filled anew."""
        super().set_state(state)  # type: ignore[misc]
        if _REPLAY in state:
            self.replay.set_state(state[_REPLAY]["transitions"])
            self._due = float(state[_REPLAY]["due"])


class ReplaySAC(ReplayTraining, _SAC):  # type: ignore[misc]
    """RLlib's SAC on :class:`Replay`."""

    @classmethod
    def get_default_config(cls) -> Any:
        """Return the configuration that RLlib starts from."""
        return ReplaySACConfig()


class ReplayDQN(ReplayTraining, _DQN):  # type: ignore[misc]
    """RLlib's DQN on :class:`Replay`."""

    @classmethod
    def get_default_config(cls) -> Any:
        """Return the configuration that RLlib starts from."""
        return ReplayDQNConfig()


class ReplayConfig:
    """What the replay is told beside what RLlib's configurations hold."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)  # type: ignore[call-arg]
        tolerate_faults(self)
        self.buffer_capacity = 200_000
        self.learning_starts = 1536
        self.updates_per_step = 0.25
        self.store_buffer = False
        self.replay_buffer_config = {"type": "MultiAgentEpisodeReplayBuffer", "capacity": 1}  # RLlib's, left empty


class ReplaySACConfig(ReplayConfig, _SACConfig):  # type: ignore[misc]
    """RLlib's ``SACConfig`` for :class:`ReplaySAC`."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or ReplaySAC)

    def get_default_rl_module_spec(self) -> Any:
        """Return the module whose deterministic action is squashed too."""
        return RLModuleSpec(module_class=SquashedModule)

    def get_default_learner_class(self) -> Any:
        """Return the learner whose checkpoints hold all that it has learnt."""
        return CompleteSACLearner


class ReplayDQNConfig(ReplayConfig, _DQNConfig):  # type: ignore[misc]
    """RLlib's ``DQNConfig`` for :class:`ReplayDQN`."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or ReplayDQN)


class SquashedGaussian(_SquashedGaussian):  # type: ignore[misc]
    """RLlib's squashed Gaussian; RLlib's most likely action is the mean before it is squashed."""

    def to_deterministic(self) -> Any:
        """Return the squashed mean."""
        return TorchDeterministic(loc=torch.tanh(self.loc))  # RLlib's actions lie in [-1, 1] before they are scaled


class SquashedModule(_SACModule):  # type: ignore[misc]
    """RLlib's module of SAC, acting by the squashed mean where it does not explore."""

    def get_inference_action_dist_cls(self) -> Any:
        """Return the distribution that actions without exploration are read from."""
        return SquashedGaussian


class CompleteSACLearner(_SACLearner):  # type: ignore[misc]
    """RLlib's learner of SAC, with the weights of the entropy in its state, where RLlib leaves them out."""

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Return the state."""
        state: dict[str, Any] = super().get_state(components, not_components=not_components, **kwargs)
        state["log_alpha"] = {name: float(value.item()) for name, value in self.curr_log_alpha.items()}
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up a state."""
        super().set_state(state)
        for name, value in state.get("log_alpha", {}).items():
            with torch.no_grad():
                self.curr_log_alpha[name].fill_(value)
