"""Every setting of a training run, its default and its meaning; it knows nothing of RLlib's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from powergrid.errors import describe_unknown

ALIASES: dict[str, str] = {
    "sgd_minibatch_size": "minibatch_size",
    "num_sgd_iter": "num_epochs",
    "train_batch_size_per_learner": "train_batch_size",
    "num_rollout_workers": "num_env_runners",
    "num_workers": "num_env_runners",
    "num_envs_per_worker": "num_envs_per_env_runner",
    "lambda": "lambda_",
    "fcnet_hiddens": "hidden",
    "fcnet_activation": "activation",
}

#: What a preset sets beside the defaults. ``fast`` is the defaults, ``page`` the values long recommended for PPO here.
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {},
    "page": {
        "lr": 3e-4,
        "lr_end": None,
        "train_batch_size": 4000,
        "minibatch_size": 128,
        "num_epochs": 10,
        "gamma": 0.99,
        "lambda_": 0.95,
        "clip_param": 0.2,
        "vf_clip_param": 10.0,
        "entropy_coeff": 0.01,
        "num_env_runners": 4,
        "num_envs_per_env_runner": 1,
        "rollout_fragment_length": 200,
    },
}


class TrainSettings(BaseModel):
    """Set how long, how and with what network PPO trains; every field has a working default.

    Other algorithms' settings are in :mod:`powergrid.training.rllib.algorithm_settings`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: int = Field(600, ge=1, description="Training iterations; each gathers one batch and learns from it.")
    seed: int | None = Field(0, ge=0, description="Seed of networks, exploration and episodes; null draws one.")
    lr: float = Field(1e-3, gt=0, description="Learning rate of Adam.")
    lr_end: float | None = Field(
        5e-5, ge=0, description="Learning rate at the last iteration, reached linearly; null keeps `lr`."
    )
    train_batch_size: int = Field(1536, ge=1, description="Environment steps per iteration (16 days of 96 steps).")
    minibatch_size: int = Field(768, ge=1, description="Agent steps of one policy per gradient step.")
    num_epochs: int = Field(12, ge=1, description="Passes over the batch in one iteration.")
    gamma: float = Field(0.99, gt=0, le=1, description="Discount per step.")
    lambda_: float = Field(0.95, ge=0, le=1, description="Lambda of generalised advantage estimation.")
    clip_param: float = Field(0.2, gt=0, description="PPO's clip of the probability ratio.")
    vf_clip_param: float | None = Field(
        None, gt=0, description="Cap on the squared value error, above which the value network gets no gradient."
    )
    vf_loss_coeff: float = Field(0.5, ge=0, description="Weight of the value loss.")
    entropy_coeff: float = Field(0.003, ge=0, description="Weight of the entropy bonus.")
    use_kl_loss: bool = Field(False, description="Add RLlib's adaptive KL penalty to the clipped loss.")
    kl_coeff: float = Field(0.2, ge=0, description="First coefficient of the KL penalty.")
    kl_target: float = Field(0.01, gt=0, description="KL divergence per iteration that the penalty aims at.")
    grad_clip: float | None = Field(None, gt=0, description="Largest norm of a policy's gradient; null: no limit.")
    hidden: tuple[int, ...] = Field((128, 128), min_length=1, description="Width of each hidden layer.")
    activation: Literal["tanh", "relu", "elu", "swish", "linear"] = Field("tanh", description="Hidden activation.")
    initial_log_std: float = Field(-0.7, description="First spread of each continuous action, as its logarithm.")
    initial_neutral: float = Field(
        0.5,
        ge=0,
        le=1,
        description="How near the first policy is to leaving devices to themselves: 0 mid-range, 1 there.",
    )
    free_log_std: bool = Field(True, description="Learn one spread per action, not one that depends on the state.")
    env_runner: Literal["grid", "stock"] = Field(
        "grid", description="What samples: `grid`, powergrid's runner on arrays, or `stock`, RLlib's own."
    )
    learner: Literal["grid", "stock"] = Field(
        "grid", description="What learns: `grid`, powergrid's faster form of RLlib's PPO learner, or `stock`, RLlib's."
    )
    share_unequal: bool = Field(
        False, description="Let agents of unequal spaces share a policy: padded, with a one-hot of the agent."
    )
    num_env_runners: int | None = Field(
        None,
        ge=0,
        description="Processes that step environments, 0: this one; null: one less than CPUs, at most 8, 0 for 2.",
    )
    num_envs_per_env_runner: int | None = Field(
        None,
        ge=1,
        description="Environments stepped together in each process; null: 16, or fewer to suit a "
        "`rollout_fragment_length`.",
    )
    rollout_fragment_length: int | Literal["auto"] = Field(
        "auto", description="Steps one environment gives per request; `auto` divides the batch evenly."
    )
    sample_timeout_s: float = Field(120.0, gt=0, description="Longest wait for a process's steps [s].")
    observation_filter: Literal["none", "mean_std"] = Field(
        "none", description="`mean_std`: scale each agent's observations by their running mean and spread."
    )
    normalize_actions: bool = Field(True, description="Scale the network's [-1, 1] to the action's bounds.")
    clip_actions: bool = Field(False, description="Clip actions to their bounds where they are not scaled.")
    checkpoint_every: int = Field(20, ge=1, description="Iterations between checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, description="Newest checkpoints kept, beside the best one.")
    validate_every: int = Field(20, ge=0, description="Iterations between validations; 0 never validates.")
    validation_episodes: int = Field(8, ge=1, description="Episodes of one validation, the same ones each time.")
    validation_split: str = Field("validation", description="Split of the profiles that chooses the best checkpoint.")

    @model_validator(mode="after")
    def _minibatch_fits_batch(self) -> TrainSettings:
        if self.minibatch_size > self.train_batch_size:
            raise ValueError(
                f"minibatch_size {self.minibatch_size} is larger than train_batch_size {self.train_batch_size}"
            )
        return self


def resolve_settings(
    settings: Mapping[str, Any], base: TrainSettings | None = None, *, kind: type[TrainSettings], names: Sequence[str]
) -> tuple[TrainSettings, list[str]]:
    """Read settings under current or older RLlib names.

    Args:
        settings: What was asked for; ``preset`` names one of :data:`PRESETS`, which all else overrides.
        base: What holds where nothing was asked; the defaults where none is given.
        kind: The settings' class.
        names: The settings that there are.

    Returns:
        The settings, defaults where a value was refused, and one sentence for each problem.
    """
    aliases = {alias: field for alias, field in ALIASES.items() if field in names}
    problems: list[str] = []
    known: dict[str, Any] = {}
    came_as: dict[str, str] = {}
    asked = dict(settings)
    preset = asked.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        problems.append(describe_unknown("preset", str(preset), PRESETS))
    for name, value in asked.items():
        field = aliases.get(name, name)
        if field not in names:
            problems.append(describe_unknown("setting", name, ["preset", *names, *aliases]))
        elif field in known:
            problems.append(f"{came_as[field]!r} and {name!r} are the same setting; give one")
        else:
            known[field], came_as[field] = value, name
    try:
        return kind(**((base.model_dump() if base else {}) | PRESETS.get(str(preset), {}) | known)), problems
    except ValidationError as error:
        for item in error.errors():
            field = str(item["loc"][0]) if item["loc"] else ""
            message = str(item["msg"]).removeprefix("Value error, ")
            problems.append(f"{came_as.get(field, field)} = {item['input']!r}: {message}" if field else message)
        return kind(), problems


def settings_table() -> str:
    """Return the settings as a Markdown table, the one in ``docs/training.md``."""

    def accepted(name: str) -> str:
        return ", ".join(f"`{alias}`" for alias, meant in ALIASES.items() if meant == name)

    rows = ["| setting | default | `page` | meaning | also accepted as |", "|---|---|---|---|---|"]
    for name, field in TrainSettings.model_fields.items():
        page = _shown(PRESETS["page"][name]) if name in PRESETS["page"] else ""
        rows.append(f"| `{name}` | {_shown(field.default)} | {page} | {field.description} | {accepted(name)} |")
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(list(value) if isinstance(value, tuple) else value)
