"""MAPPO: each actor sees its agent's own observation, the critic in training those of all agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2

from powergrid.errors import PowerGridError
from powergrid.training.rllib.network import FastTanh, QuietStartModule

#: The column of a training batch with what the critic sees.
JOINT_OBSERVATION = "joint_observation"

_Connector: Any = ConnectorV2
_ACTIVATIONS: dict[str, Any] = {
    "tanh": FastTanh,
    "relu": torch.nn.ReLU,
    "elu": torch.nn.ELU,
    "swish": torch.nn.SiLU,
    "linear": torch.nn.Identity,
}


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


class JoinAgents:
    """Build :class:`JointObservations`; RLlib's ``learner_connector``, and unlike a lambda it pickles by name."""

    reads_infos = False

    def __init__(self, agents: Sequence[str]) -> None:
        self.agents = list(agents)

    def __call__(self, observation_space: Any, action_space: Any) -> JointObservations:
        """Return the connector."""
        return JointObservations(observation_space, action_space, agents=self.agents)


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
        width, activation = int(settings["joint_width"]), _ACTIVATIONS[settings["fcnet_activation"]]
        layers: list[torch.nn.Module] = []
        for hidden in settings["critic_hiddens"]:
            layers += [torch.nn.Linear(width, hidden), activation()]
            width = hidden
        self.vf: Any = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))

    def get_non_inference_attributes(self) -> list[str]:
        """Return what only training needs."""
        return ["vf"]

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output: dict[str, Any] = self._forward(batch)
        return output

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        """Return the values of joint observations, shape (n,)."""
        return self.vf(batch[JOINT_OBSERVATION]).squeeze(-1)
