"""The settings of each algorithm: what PPO's become for MAPPO, SAC and DQN, and which algorithm has which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.training.runs.settings import ALIASES, TrainSettings, resolve_settings

_ONLY_ON_POLICY = frozenset(
    {"lr_end", "minibatch_size", "num_epochs", "lambda_", "clip_param", "vf_clip_param", "vf_loss_coeff"}
    | {"entropy_coeff", "use_kl_loss", "kl_coeff", "kl_target", "initial_log_std", "initial_neutral", "free_log_std"}
)  # fmt: skip


class MappoSettings(TrainSettings):
    """PPO's settings, and the critic's network."""

    algorithm: ClassVar[str] = "mappo"

    critic_hidden: tuple[int, ...] = Field(
        (128, 128), min_length=1, description="Width of each hidden layer of the critic, which sees the joint state."
    )


class OffPolicySettings(TrainSettings):
    """What algorithms that learn from a replay buffer have in common."""

    unused: ClassVar[frozenset[str]] = _ONLY_ON_POLICY

    iterations: int = Field(200, ge=1, description="Training iterations, of `steps_per_iteration` each.")
    lr: float = Field(3e-4, gt=0, description="Learning rate of Adam.")
    train_batch_size: int = Field(
        256, ge=1, description="Agent steps drawn of each policy's buffer for one gradient step."
    )
    hidden: tuple[int, ...] = Field((128, 128), min_length=1, description="Width of each hidden layer.")
    activation: Literal["tanh", "relu", "elu", "swish", "linear"] = Field("relu", description="Hidden activation.")
    rollout_fragment_length: int | Literal["auto"] = Field(
        4, description="Steps each environment gives between two rounds of gradient steps; `auto`: `n_step`."
    )
    steps_per_iteration: int = Field(1536, ge=1, description="Environment steps per iteration (16 days of 96 steps).")
    learning_starts: int = Field(
        1536, ge=1, description="Environment steps gathered before the first gradient step, also after a resume."
    )
    updates_per_step: float = Field(0.25, gt=0, description="Gradient steps per environment step.")
    buffer_capacity: int = Field(200_000, ge=1, description="Agent steps kept for each policy.")
    store_buffer: bool = Field(
        False, description="Keep the replay buffer in checkpoints; without it a resumed run fills it anew."
    )
    n_step: int = Field(1, ge=1, description="Steps of reward before the value of what follows is estimated.")

    @model_validator(mode="after")
    def _minibatch_fits_batch(self) -> OffPolicySettings:
        return self  # there is none


class SacSettings(OffPolicySettings):
    """Soft actor-critic, for continuous actions."""

    algorithm: ClassVar[str] = "sac"

    tau: float = Field(0.005, gt=0, le=1, description="Share of the networks in their targets after each update.")
    twin_q: bool = Field(True, description="Learn two Q networks and use the lesser one.")
    initial_alpha: float = Field(0.1, gt=0, description="First weight of the entropy.")
    alpha_lr: float = Field(3e-4, ge=0, description="Learning rate of the weight of the entropy.")
    target_entropy: float | Literal["auto"] = Field(
        "auto", description="Entropy that the weight is learnt for; `auto`: minus the number of actions."
    )


class DqnSettings(OffPolicySettings):
    """Deep Q-learning, for one discrete action."""

    algorithm: ClassVar[str] = "dqn"

    double_q: bool = Field(True, description="Choose the next action by the network, value it by its target.")
    dueling: bool = Field(True, description="Learn the value of a state apart from the advantages of actions.")
    target_network_update_freq: int = Field(1000, ge=1, description="Environment steps between copies to the target.")
    epsilon_start: float = Field(1.0, ge=0, le=1, description="Share of random actions at the beginning.")
    epsilon_end: float = Field(0.05, ge=0, le=1, description="Share of random actions at the end.")
    epsilon_steps: int = Field(
        50_000, ge=1, description="Environment steps from `epsilon_start` to `epsilon_end`, linearly."
    )
    max_flat_actions: int = Field(
        1024, ge=2, description="Most combinations of an agent's positions that one number may stand for."
    )


SETTINGS: dict[str, type[TrainSettings]] = {
    "ppo": TrainSettings,
    "mappo": MappoSettings,
    "sac": SacSettings,
    "dqn": DqnSettings,
}


def algorithm_of(settings: TrainSettings) -> str:
    """Return the name of the algorithm that settings are of."""
    return next(name for name, kind in SETTINGS.items() if kind is type(settings))


def fields_of(algorithm: str) -> list[str]:
    """Name the settings of an algorithm."""
    kind = SETTINGS[algorithm]
    unused: frozenset[str] = getattr(kind, "unused", frozenset())
    return [name for name in kind.model_fields if name not in unused]


def dump_settings(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that the algorithm has, as JSON takes them."""
    return settings.model_dump(mode="json", include=set(fields_of(algorithm_of(settings))))


def resolve_algorithm_settings(
    algorithm: str, settings: Mapping[str, Any] | TrainSettings | None, base: TrainSettings | None = None
) -> tuple[TrainSettings, list[str]]:
    """Read the settings of an algorithm, as ``resolve_settings`` of the runs does those of PPO."""
    if algorithm not in SETTINGS:
        raise ScenarioError("algorithm", [describe_unknown("algorithm", str(algorithm), SETTINGS)])
    kind = SETTINGS[algorithm]
    if isinstance(settings, TrainSettings):
        if type(settings) is kind:
            return settings, []
        return kind(), [f"settings of {algorithm_of(settings)} are none of {algorithm}"]
    allowed = set(fields_of(algorithm))
    misplaced: list[str] = []
    rest: dict[str, Any] = {}
    for name, value in dict(settings or {}).items():
        field = ALIASES.get(name, name)
        if name == "preset" and value not in (None, "fast") and issubclass(kind, OffPolicySettings):
            misplaced.append(f"{algorithm} has no preset {value!r}; presets are of ppo and mappo")
            continue
        owners = [other for other in SETTINGS if field in fields_of(other)]
        if field not in allowed and owners:
            misplaced.append(f"{algorithm} has no setting {name!r}; it is one of {', '.join(owners)}")
        else:
            rest[name] = value
    resolved, problems = resolve_settings(rest, base, kind=kind, names=fields_of(algorithm))
    return resolved, misplaced + problems


def make_algorithm_settings(
    algorithm: str, settings: Mapping[str, Any] | TrainSettings | None = None, base: TrainSettings | None = None
) -> TrainSettings:
    """Return checked settings of an algorithm, or raise every problem at once.

    Raises:
        ScenarioError: The algorithm or a name is unknown, the algorithm has no such setting, or a value is refused.
    """
    resolved, problems = resolve_algorithm_settings(algorithm, settings, base)
    if problems:
        raise ScenarioError("training settings", problems)
    return resolved


def algorithm_table(algorithm: str) -> str:
    """Return what an algorithm has other than PPO's, as a Markdown table, the one in ``docs/algorithms.md``."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    kind = SETTINGS[algorithm]
    for name in fields_of(algorithm):
        field, ppo = kind.model_fields[name], TrainSettings.model_fields.get(name)
        if ppo is None or (field.default, field.description) != (ppo.default, ppo.description):
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            rows.append(f"| `{name}` | {'null' if default is None else default} | {field.description} |")
    return "\n".join(rows) + "\n"
