"""RLlib's modules here: perceptrons that start quiet, MAPPO's central critic, and how they act for many at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.module_to_env import GetActions
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.models.torch.encoder import TorchMLPEncoder
from ray.rllib.utils.spaces.space_utils import clip_action, get_base_struct_from_space, unsquash_action

from powergrid.errors import PowerGridError
from powergrid.training.policies.inference import TORCH_LAYERS, paired
from powergrid.training.policies.messages import MessagePassing
from powergrid.training.policies.positions import ProposedMeans, StandingPositions


class QuietStartModule(DefaultPPOTorchRLModule):
    """Start RLlib's PPO module as one policy everywhere: chosen means and spreads, and chosen odds of positions.

    ``model_config`` may hold ``initial_bias`` (a mean for each continuous action, in units of the normalised action, a
    logit for each position, in the order of the parts), ``initial_log_std``, ``standing`` with ``initial_stay``, what
    :class:`StandingPositions` holds and first adds for staying, ``proposed``, what :class:`ProposedMeans` holds, and
    ``graph``, what :class:`MessagePassing` holds,
    where actor and critic pass messages over the graph that is observed. The last policy layer starts 100
    times smaller than RLlib makes it, so that the first policy hardly depends on what is observed.

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
        plain = gaussian and isinstance(actor, TorchMLPEncoder)
        self._acting = [*actor.net.mlp, *pi.net.mlp] if plain else None

    def _look_at_graph(self, graph: MessagePassing, settings: Mapping[str, Any]) -> None:
        """Put encoders that pass messages in the place of RLlib's perceptrons."""
        encoder: Any = self.encoder
        for name in ("actor_encoder", "critic_encoder"):
            if getattr(encoder, name, None) is not None:
                setattr(encoder, name, GraphEncoder(graph, settings["fcnet_hiddens"], settings["fcnet_activation"]))

    def train(self, mode: bool = True) -> Any:
        """Enter or leave training mode; RLlib asks for it at every pass, and to walk the layers takes as long."""
        return super().train(mode) if self.training != mode else self

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Act by the policy's layers alone: RLlib's own pass computes the value network's too, and drops them."""
        encoder: Any = self.encoder
        if not hasattr(encoder, "actor_encoder") or self.is_stateful():
            shared: dict[str, Any] = super()._forward(batch, **kwargs)
            return self._place(shared, batch)
        pi: Any = self.pi
        return self._place({Columns.ACTION_DIST_INPUTS: pi(encoder.actor_encoder(batch)[ENCODER_OUT])}, batch)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return what RLlib learns from: the distribution's inputs, and what its value is reckoned from."""
        return self._place(super()._forward_train(batch, **kwargs), batch)

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
        seen = observed = batch[Columns.OBS]
        if self._acting is None or seen.device.type != "cpu":
            output: dict[str, Any] = super()._forward_exploration(batch, **kwargs)
            return output
        pi: Any = self.pi
        with torch.no_grad():
            for layer in self._acting:
                if isinstance(layer, torch.nn.Linear):
                    seen = torch.nn.functional.linear(seen, layer.weight, layer.bias)
                elif isinstance(layer, FastTanh):
                    np.tanh(seen.numpy(), out=seen.numpy())  # a fifth of torch's time; inference stays torch's bits
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
        return {name: torch.from_numpy(values) for name, values in drawn.items()}

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


class GraphEncoder(torch.nn.Module):
    """Encode an observation by messages over its graph and a perceptron on what comes of them, for RLlib's heads.

    Args:
        graph: The graph and how messages pass.
        hidden: Width of each hidden layer after them; RLlib's head takes the last.
        activation: That of every layer.
    """

    def __init__(self, graph: MessagePassing, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        kind, after = getattr(torch.nn, TORCH_LAYERS[activation]), [graph.outputs, *hidden]
        sizes = [*graph.layers, *pairwise(after)]
        self.graph = graph
        self.layers = torch.nn.Sequential(*(part for size in sizes for part in (torch.nn.Linear(*size), kind())))

    def forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the encoding of the observations of a batch, as RLlib's encoders do."""
        seen = batch[Columns.OBS]
        return {ENCODER_OUT: self.graph.pass_messages(seen, paired(self.layers), torch)}


class FastTanh(torch.nn.Tanh):
    """A hidden layer's tanh, by NumPy where it is learnt on a CPU: torch's takes several times as long there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return tanh of every entry; within 4 units in the last place of torch's where NumPy's is taken."""
        if not (torch.is_grad_enabled() and x.requires_grad) or x.device.type != "cpu" or x.dtype is not torch.float32:
            return super().forward(x)
        result: torch.Tensor = _NumpyTanh.apply(x)  # type: ignore[no-untyped-call]
        return result


class _NumpyTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grads[0], y)


def quicken(module: torch.nn.Module) -> None:
    """Put :class:`FastTanh` in the place of every tanh of a module."""
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            if type(layer) is torch.nn.Tanh:
                setattr(parent, name, FastTanh())


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
        width, activation = int(settings["joint_width"]), getattr(torch.nn, TORCH_LAYERS[settings["fcnet_activation"]])
        layers: list[torch.nn.Module] = []
        for hidden in settings["critic_hiddens"]:
            layers += [torch.nn.Linear(width, hidden), activation()]
            width = hidden
        self.vf: Any = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))
        quicken(self.vf)

    def get_non_inference_attributes(self) -> list[str]:
        """Return what only training needs."""
        return ["vf"]

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output: dict[str, Any] = self._forward(batch)
        return output

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        """Return the values of joint observations, shape (n,)."""
        return self.vf(batch[JOINT_OBSERVATION]).squeeze(-1)


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
        self._device: Any = None
        if isinstance(module, torch.nn.Module):
            module.eval()  # which acting always is; else RLlib walks the layers at every step to say so
            self._device = next(module.parameters()).device
        self._normalize, self._clip = normalize, clip
        self._struct = get_base_struct_from_space(space)
        self._get_actions: Any = GetActions()
        self._box = _bounds(space) if normalize else None

    def act(self, seen: Any, *, explore: bool, t: int) -> dict[str, Any]:
        """Return what the policy says, by RLlib's columns, each (n_envs, n_agents, ...), and the actions to play.

        Args:
            seen: Observations, shape (n_envs, n_agents, n_observed).
            explore: Whether to draw actions.
            t: Steps sampled so far, by which RLlib's modules may explore.
        """
        n, m = seen.shape[:2]
        batch = {Columns.OBS: torch.from_numpy(seen.reshape(n * m, -1)).to(self._device)}
        module = self._module
        with torch.no_grad():
            out = dict(module.forward_exploration(batch, t=t) if explore else module.forward_inference(batch))
            if Columns.ACTIONS not in out:
                # RLlib's connector looks at the first episode only for whether there are several agents in it
                out = self._get_actions(rl_module=module, batch=out, episodes=[None], explore=explore)
        columns = {name: _to_numpy(values, n, m) for name, values in out.items()}
        if Columns.ACTIONS_FOR_ENV not in columns:
            columns[Columns.ACTIONS_FOR_ENV] = self._fit(columns[Columns.ACTIONS])
        return columns

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
