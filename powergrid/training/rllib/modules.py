"""RLlib's modules here: perceptrons that start quiet, MAPPO's central critic, and how they act for many at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.module_to_env import GetActions
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.models.torch.encoder import TorchMLPEncoder
from ray.rllib.utils.spaces.space_utils import clip_action, get_base_struct_from_space, unsquash_action

from powergrid.errors import PowerGridError
from powergrid.training.policies.messages import MessagePassing
from powergrid.training.policies.positions import ProposedMeans, StandingPositions
from powergrid.training.policies.spaces import CONTINUOUS
from powergrid.training.rllib.layers import HELD, FastTanh, GraphEncoder, MemoryEncoder, perceptron, quicken


class QuietStartModule(DefaultPPOTorchRLModule):
    """Start RLlib's PPO module as one policy everywhere: chosen means and spreads, and chosen odds of positions.

    ``model_config`` may hold ``initial_bias`` (a mean for each continuous action, in units of the normalised action, a
    logit for each position, in the order of the parts), ``initial_log_std``, ``standing`` with ``initial_stay``, what
    :class:`StandingPositions` holds and first adds for staying, ``proposed``, what :class:`ProposedMeans` holds,
    ``graph``, what :class:`MessagePassing` holds, where actor and critic pass messages over the graph that is
    observed, and ``memory``, how many numbers the actor carries from step to step; then RLlib's ``max_seq_len`` says
    over how many steps of them it learns. The critic sees beside the observation what the actor remembers, and does
    not change it. The last policy layer starts 100 times smaller than RLlib makes it, so that the first policy hardly
    depends on what is observed.

    Source:
        Andrychowicz et al., What Matters In On-Policy Reinforcement Learning?, ICLR 2021, on the last policy layer
        and the first spread.
    """

    def setup(self) -> None:
        """Build the networks, then quieten the last policy layer."""
        super().setup()  # type: ignore[no-untyped-call]
        settings: Any = self.model_config
        #: How messages pass over the graph that is observed; None where none is looked at.
        self.graph = MessagePassing(**settings["graph"]) if settings.get("graph") else None
        if self.graph is not None:
            self._look_at_graph(self.graph, settings)
        #: How many numbers the actor carries from step to step.
        self.memory = int(settings.get("memory") or 0)
        if self.memory:
            self._look_back(settings)
        quicken(self)
        pi: Any = self.pi
        standing = settings.get("standing")
        #: How outputs become logits of positions that lean towards where devices stand; None where none tells that.
        self.standing = StandingPositions(**standing) if standing else None
        #: How outputs are added to what rules propose; None where none do.
        self.proposed = ProposedMeans(**settings["proposed"]) if settings.get("proposed") else None
        if self.standing is not None:
            layers = pi.net.mlp
            layers[-1] = torch.nn.Linear(layers[-1].in_features, self.standing.outputs)
        last: Any = [layer for layer in pi.modules() if isinstance(layer, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.zero_()
            if self.standing is not None:
                last.bias[self.standing.width :: 2] = torch.as_tensor(settings["initial_stay"])
            self._start(last, settings.get("initial_bias"), settings.get("initial_log_std"))
        # the layers from observation to action where there is nothing else between; RLlib copies modules, so no arrays
        # are kept: they would not be those of the copy's parameters
        actor: Any = getattr(self.encoder, "actor_encoder", None)
        gaussian = self.get_exploration_action_dist_cls() is TorchDiagGaussian
        own: Any = None
        if isinstance(actor, TorchMLPEncoder):
            own = actor.net.mlp
        elif self.memory:
            own = [*actor.layers, actor]
        self._acting = [*own, *pi.net.mlp] if gaussian and own is not None else None

    def _look_at_graph(self, graph: MessagePassing, settings: Mapping[str, Any]) -> None:
        """Put encoders that pass messages in the place of RLlib's perceptrons."""
        encoder: Any = self.encoder
        for name in ("actor_encoder", "critic_encoder"):
            if getattr(encoder, name, None) is not None:
                setattr(encoder, name, GraphEncoder(graph, settings["fcnet_hiddens"], settings["fcnet_activation"]))

    def _look_back(self, settings: Mapping[str, Any]) -> None:
        """Let the actor remember, and the head and the critic see what it does."""
        encoder, head, seen = self.encoder, self.pi.net.mlp, self.observation_space
        inputs, hidden = int(np.prod(getattr(seen, "shape", None) or ())), settings["fcnet_hiddens"]
        encoder.actor_encoder = MemoryEncoder([inputs, *hidden], settings["fcnet_activation"], self.memory)
        if encoder.critic_encoder is not None:
            encoder.critic_encoder = perceptron([inputs + self.memory, *hidden], settings["fcnet_activation"])
        head[0] = torch.nn.Linear(hidden[-1] + self.memory, head[0].out_features)

    def get_initial_state(self) -> dict[str, Any]:
        """Return what is remembered at the start of an episode, RLlib's way."""
        return {HELD: torch.zeros(self.memory)} if self.memory else {}

    def train(self, mode: bool = True) -> Any:
        """Enter or leave training mode; RLlib asks for it at every pass, and to walk the layers takes as long."""
        return super().train(mode) if self.training != mode else self

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Act by the policy's layers alone: RLlib's own pass computes the value network's too, and drops them."""
        encoder: Any = self.encoder
        if self.memory:
            return self._recall(batch)
        if not hasattr(encoder, "actor_encoder"):
            shared: dict[str, Any] = super()._forward(batch, **kwargs)
            return self._place(shared, batch)
        pi: Any = self.pi
        return self._place({Columns.ACTION_DIST_INPUTS: pi(encoder.actor_encoder(batch)[ENCODER_OUT])}, batch)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return what RLlib learns from: the distribution's inputs, and what its value is reckoned from."""
        if self.memory:
            return self._recall(batch, learns=True)
        return self._place(super()._forward_train(batch, **kwargs), batch)

    def _recall(self, batch: dict[str, Any], *, learns: bool = False) -> dict[str, Any]:
        """Act on sequences of observations, shape (n, steps, n_observed), each with what was remembered before it."""
        encoder, pi = self.encoder, self.pi
        told = encoder.actor_encoder(batch)
        rows = told[ENCODER_OUT].flatten(0, 1)  # RLlib's head with a spread of its own takes no sequences
        inputs = pi(rows).unflatten(0, told[ENCODER_OUT].shape[:2])
        output = {Columns.ACTION_DIST_INPUTS: inputs, Columns.STATE_OUT: told[Columns.STATE_OUT]}
        if learns:
            output[Columns.EMBEDDINGS] = told[ENCODER_OUT][..., -self.memory :].detach()
        return self._place(output, batch)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        """Return the values of what was observed, of sequences with what the actor remembers beside it."""
        if not self.memory:
            return super().compute_values(batch, embeddings)
        encoder: Any = self.encoder
        return self.vf(encoder.critic_encoder(self._beside(batch[Columns.OBS], batch, embeddings))).squeeze(-1)

    def _beside(self, seen: Any, batch: dict[str, Any], remembered: Any) -> Any:
        """Return what a critic sees, and beside it what the actor remembers, which is reckoned where not given."""
        if remembered is None:
            with torch.no_grad():
                remembered = self._recall(batch, learns=True)[Columns.EMBEDDINGS]
        return torch.cat((seen, remembered), -1)

    def _place(self, output: dict[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
        for each in (self.standing, self.proposed):
            if each is not None:
                given = output[Columns.ACTION_DIST_INPUTS]
                output[Columns.ACTION_DIST_INPUTS] = each.place(given, batch[Columns.OBS], torch)
        return output

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Draw the actions as well where they are Gaussian, the layers and the draw without a module's calls."""
        # RLlib lets a module return actions and their log-probabilities itself; its own distribution objects draw the
        # same numbers and take as long for it as the layers take
        seen = batch[Columns.OBS]
        if self._acting is None or seen.device.type != "cpu" or (self.memory and seen.shape[1] != 1):
            output: dict[str, Any] = super()._forward_exploration(batch, **kwargs)
            return output
        pi: Any = self.pi
        with torch.no_grad():
            seen = observed = seen[:, 0] if self.memory else seen
            for layer in self._acting:
                if isinstance(layer, torch.nn.Linear):
                    seen = torch.nn.functional.linear(seen, layer.weight, layer.bias)
                elif isinstance(layer, FastTanh):
                    np.tanh(seen.numpy(), out=seen.numpy())  # a fifth of torch's time; inference stays torch's bits
                elif isinstance(layer, MemoryEncoder):
                    seen, held = layer.step(seen, batch[Columns.STATE_IN][HELD])
                else:
                    seen = layer(seen)
            told = seen.numpy()
            # one spread for all that is seen, beside the layers and not of them; or a spread for each, the second half
            mean, log_std = (told, pi.log_std.numpy()) if hasattr(pi, "log_std") else np.split(told, 2, axis=1)
            if pi.clip_log_std:
                most = pi.log_std_clip_param.item()
                log_std = np.minimum(np.maximum(log_std, -most), most)
            if self.proposed is not None:
                mean = self.proposed.place(mean, observed.numpy())
            n = mean.shape[1]
            inputs = np.empty((len(mean), 2 * n), dtype=np.float32)
            inputs[:, :n], inputs[:, n:] = mean, log_std
            noise = torch.randn(mean.shape).numpy()  # by torch's generator, which RLlib seeds
            drawn = {
                Columns.ACTION_DIST_INPUTS: inputs,
                Columns.ACTIONS: mean + noise * np.exp(log_std),
                Columns.ACTION_LOGP: -(0.5 * noise * noise + log_std + HALF_LOG_TWO_PI).sum(-1),
            }
        if not self.memory:
            return {name: torch.from_numpy(values) for name, values in drawn.items()}
        given: dict[str, Any] = {name: torch.from_numpy(values[:, None]) for name, values in drawn.items()}
        return given | {Columns.STATE_OUT: {HELD: held}}

    def _start(self, last: Any, bias: list[float] | None, log_std: float | None) -> None:
        free = getattr(self.pi, "log_std", None)
        if free is not None and log_std is not None:
            free.fill_(log_std)
        given, entry = 0, 0  # places in the chosen numbers, and in the layer, which has spreads as well
        for kind, size in _parts(self.action_space):
            if bias is not None:
                chosen = torch.as_tensor(bias[given : given + size], dtype=last.bias.dtype)
                last.bias[entry : entry + size] = chosen
            given, entry = given + size, entry + size
            if kind == "box" and free is None:
                if log_std is not None:
                    last.bias[entry : entry + size] = log_std
                entry += size


def _parts(space: Any) -> Iterator[tuple[str, int]]:
    """Return the parts of an action space in the order of the distribution's inputs: kind and number of inputs."""
    if isinstance(space, gym.spaces.Dict):
        for part in space.spaces.values():
            yield from _parts(part)
    elif isinstance(space, gym.spaces.Box):
        yield "box", int(np.prod(space.shape))
    else:
        yield "positions", int(space.n if isinstance(space, gym.spaces.Discrete) else np.sum(space.nvec))


#: The column of a training batch with what the critic sees.
JOINT_OBSERVATION = "joint_observation"

_Connector: Any = ConnectorV2


def joint_width(widths: Mapping[str, int], agent: str) -> int:
    """Return how many entries the critic of an agent's policy sees."""
    return widths[agent] + sum(widths.values()) + len(widths)


class JointObservations(_Connector):  # type: ignore[misc]
    """Add what the critic sees to every step that is learnt from.

    That is the agent's own observation, the observations of all agents at the same step in a fixed order, and a
    one-hot of the agent, by which agents that share a critic may have unequal values. It is put together from the
    sampled episodes, after RLlib has added the step from which the value of what follows is bootstrapped: so that
    value too is of the joint state. The environment, its runners and the actors know nothing of it.

    Args:
        agents: All agents, in the fixed order.
    """

    reads_infos = False

    def __init__(
        self, input_observation_space: Any = None, input_action_space: Any = None, *, agents: Sequence[str] = ()
    ) -> None:
        super().__init__(input_observation_space, input_action_space, agents=list(agents))
        self._agents = list(agents)

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        """Add the column :data:`JOINT_OBSERVATION` to the batch."""
        for episode in episodes:
            pieces = episode.agent_episodes
            steps = {agent: len(piece) for agent, piece in pieces.items()}
            if set(steps) != set(self._agents) or len(set(steps.values())) != 1:
                raise PowerGridError(
                    f"mappo needs all agents in every step; an episode has the steps {steps} of agents {self._agents}"
                )
            (n,) = set(steps.values())
            seen = {agent: np.asarray(pieces[agent].get_observations(slice(0, n)), np.float32) for agent in pieces}
            everything = np.concatenate([seen[agent] for agent in self._agents], axis=1)
            # in the order in which RLlib adds the other columns, whose rows these go with
            for piece in self.single_agent_episode_iterator([episode], agents_that_stepped_only=False):
                agent = piece.agent_id
                who = np.zeros((n, len(self._agents)), np.float32)
                who[:, self._agents.index(agent)] = 1.0
                joint = np.concatenate([seen[agent], everything, who], axis=1)
                self.add_n_batch_items(batch, JOINT_OBSERVATION, joint, n, piece)
        return batch


class EndedDays(_Connector):  # type: ignore[misc]
    """Let nothing follow an episode that its horizon ended: RLlib then takes no estimate of what would.

    A scenario's rewards settle at its last step what the day leaves, in batteries say. An estimate of the day after
    comes on top, and from a state in which no day ever starts: batteries start half full.
    """

    reads_infos = False

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        """Mark the last step of every such episode as its end; the step that RLlib has added comes after it."""
        ended = {episode.id_ for episode in episodes if episode.is_truncated}
        for (episode, *_), flags in batch[Columns.TERMINATEDS].items():
            if episode in ended:
                flags[-2] = True
        return batch


class LearnerPieces:
    """Build what is done with sampled episodes before they are learnt from.

    It is RLlib's ``learner_connector``, and unlike a lambda it pickles by name.

    Args:
        agents: All agents where the critic sees what all of them see, in the fixed order; else none.
        ends: Whether nothing follows the end of an episode.
    """

    reads_infos = False

    def __init__(self, agents: Sequence[str] = (), *, ends: bool = False) -> None:
        self.agents, self.ends = list(agents), ends

    def __call__(self, observation_space: Any, action_space: Any) -> list[Any]:
        """Return the connectors."""
        ended = [EndedDays(observation_space, action_space)] if self.ends else []
        joined = [JointObservations(observation_space, action_space, agents=self.agents)] if self.agents else []
        return [*ended, *joined]


class JoinAgents(LearnerPieces):
    """What checkpoints of MAPPO of 0.1.0 name; they hold the agents and nothing else."""

    ends = False


class CentralCriticModule(QuietStartModule):
    """An actor on the agent's own observation and a critic on the joint one.

    ``model_config`` holds ``joint_width`` and ``critic_hiddens`` beside what :class:`QuietStartModule` reads. The
    critic is there in training only: sampling and inference need the agent's own observation and nothing else.
    """

    def setup(self) -> None:
        """Build the actor as RLlib does, and the critic."""
        settings: Any = self.model_config
        catalog: Any = self.catalog
        catalog.actor_critic_encoder_config.inference_only = True  # no critic on the agent's own observation
        super().setup()
        sizes = [int(settings["joint_width"]) + self.memory, *settings["critic_hiddens"]]
        hidden = perceptron(sizes, settings["fcnet_activation"])
        self.vf: Any = torch.nn.Sequential(*hidden, torch.nn.Linear(sizes[-1], 1))
        quicken(self.vf)

    def get_non_inference_attributes(self) -> list[str]:
        """Return what only training needs."""
        return ["vf"]

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output: dict[str, Any] = self._recall(batch, learns=True) if self.memory else self._forward(batch)
        return output

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        """Return the values of joint observations, shape (n,), or of sequences of them, (n, steps)."""
        seen = batch[JOINT_OBSERVATION]
        return self.vf(self._beside(seen, batch, embeddings) if self.memory else seen).squeeze(-1)


HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class PolicyActor:
    """Act by a policy's module, and fit its actions into the agents' bounds.

    Args:
        module: The policy's module.
        agents: The agents it acts for, whose spaces are equal.
        space: Their action space.
        normalize: Whether the module's [-1, 1] is scaled to the actions' bounds.
        clip: Whether actions are clipped to their bounds where they are not scaled.
    """

    def __init__(
        self, module: Any, agents: Sequence[str], space: gym.Space[Any], *, normalize: bool, clip: bool
    ) -> None:
        self.agents = tuple(agents)
        self._module = module
        self._proposed: ProposedMeans | None = getattr(module, "proposed", None)
        self._device: Any = None
        if isinstance(module, torch.nn.Module):
            module.eval()  # which acting always is; else RLlib walks the layers at every step to say so
            self._device = next(module.parameters()).device
        self._normalize, self._clip = normalize, clip
        self._struct = get_base_struct_from_space(space)
        self._get_actions: Any = GetActions()
        self._box = _bounds(space) if normalize else None
        self._first: Any = tree.map_structure(_as_array, module.get_initial_state()) if module.is_stateful() else {}
        self._state: Any = {}

    def forget(self, n_envs: int, env: Any = slice(None)) -> None:
        """Let an episode start in one of so many environments, or in all of them: nothing is remembered there."""
        if not self._first:
            return
        if not self._state or len(next(iter(tree.flatten(self._state)))) != n_envs:
            room = n_envs, len(self.agents)
            self._state = tree.map_structure(lambda own: np.zeros((*room, *own.shape), own.dtype), self._first)
            env = slice(None)
        for first, own in zip(tree.flatten(self._first), tree.flatten(self._state), strict=True):
            own[env] = first

    def act(self, seen: Any, *, explore: bool, t: int) -> dict[str, Any]:
        """Return what the policy says, by RLlib's columns, each (n_envs, n_agents, ...), and the actions to play.

        Args:
            seen: Observations, shape (n_envs, n_agents, n_observed).
            explore: Whether to draw actions.
            t: Steps sampled so far, by which RLlib's modules may explore.
        """
        n, m = seen.shape[:2]
        batch: dict[str, Any] = {Columns.OBS: torch.from_numpy(seen.reshape(n * m, -1)).to(self._device)}
        module = self._module
        if self._first:
            batch[Columns.OBS] = batch[Columns.OBS][:, None]  # RLlib's modules with a state take sequences
            batch[Columns.STATE_IN] = tree.map_structure(
                lambda own: torch.from_numpy(own.reshape(n * m, *own.shape[2:])).to(self._device), self._state
            )
        with torch.no_grad():
            out = dict(module.forward_exploration(batch, t=t) if explore else module.forward_inference(batch))
            state = out.pop(Columns.STATE_OUT, None)
            if self._first:
                out = tree.map_structure(lambda values: values[:, 0], out)
            if Columns.ACTIONS not in out:
                # RLlib's connector looks at the first episode only for whether there are several agents in it
                out = self._get_actions(rl_module=module, batch=out, episodes=[None], explore=explore)
        columns = {name: _to_numpy(values, n, m) for name, values in out.items()}
        if Columns.ACTIONS_FOR_ENV not in columns:
            columns[Columns.ACTIONS_FOR_ENV] = self._fit(self._settle(columns[Columns.ACTIONS], seen))
        if self._first:
            columns[Columns.STATE_OUT] = _to_numpy(state, n, m)
            # a copy, for episodes that start write into it
            self._state = tree.map_structure(np.copy, columns[Columns.STATE_OUT])
        return columns

    def _settle(self, actions: Any, seen: Any) -> Any:
        """Leave what is proposed where little is added; the learner learns from what was drawn."""
        if self._proposed is None:
            return actions
        if isinstance(actions, Mapping):  # positions stand beside numbers
            return {**actions, CONTINUOUS: self._proposed.settle(actions[CONTINUOUS], seen)}
        return self._proposed.settle(actions, seen)

    def _fit(self, actions: Any) -> Any:
        """Scale or clip actions into their bounds, as ``NormalizeAndClipActions`` does one by one."""
        if self._box is not None:
            low, width, high = self._box
            return np.minimum(np.maximum(low + (actions + 1.0) * width / 2.0, low), high)
        if self._normalize:
            return unsquash_action(actions, self._struct)
        return clip_action(actions, self._struct) if self._clip else actions


def _bounds(space: gym.Space[Any]) -> tuple[Any, Any, Any] | None:
    """Return low, width and high of a Box of fractions that is bounded everywhere."""
    if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        return None
    if not (np.all(space.bounded_below) and np.all(space.bounded_above)):
        return None
    return space.low, space.high - space.low, space.high


def _as_array(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _to_numpy(values: Any, n_envs: int, n_agents: int) -> Any:
    """Turn tensors whose rows are agents within environments into arrays of shape (n_envs, n_agents, ...)."""
    if isinstance(values, Mapping):
        return {key: _to_numpy(part, n_envs, n_agents) for key, part in values.items()}
    array = values.detach().cpu().numpy()
    if array.dtype.itemsize == 8:  # RLlib keeps 32 bits of whole numbers and of fractions
        array = array.astype(np.int32 if array.dtype.kind == "i" else np.float32)
    return array.reshape(n_envs, n_agents, *array.shape[1:])


def pick_agent(values: Any, agent: int) -> Any:
    """Return one agent's part of columns of shape (n_envs, n_agents, ...)."""
    if isinstance(values, Mapping):
        return {key: pick_agent(part, agent) for key, part in values.items()}
    return values[:, agent]
