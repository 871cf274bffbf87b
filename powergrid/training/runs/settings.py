"""Every setting of a training run by each algorithm, its default and its meaning; of RLlib it knows nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.devices.spec import Spec
from powergrid.plain import as_plain

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

#: What a preset sets beside the defaults. ``fast`` is the defaults, ``imitate`` begins as rules do and learns on in
#: small steps, ``residual`` learns what to add to what rules do, ``page`` has the values long recommended for PPO here.
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {},
    "imitate": {
        "demonstrations": "rule_based",
        "imitation_rounds": 4,
        "imitation_passes": 10,
        "iterations": 120,
        "lr": 2e-4,
        "lr_end": 2e-5,
        "train_batch_size": 3072,
        "minibatch_size": 1536,
        "num_epochs": 8,
        "entropy_coeff": 0.0,
        "initial_log_std": -2.3,
        "validate_every": 10,
    },
    "residual": {
        "proposals": "rule_based",
        "iterations": 200,
        "lr": 5e-4,
        "lr_end": 2e-5,
        "train_batch_size": 6144,
        "minibatch_size": 3072,
        "num_epochs": 8,
        "lambda_": 0.99,
        "entropy_coeff": 0.0,
        "final_log_std": -3.5,
        "envs_per_day": 4,
        "validate_every": 10,
    },
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


#: The width of each layer of a network.
Layers = Annotated[tuple[Annotated[int, Field(ge=1, le=16_384)], ...], Field(max_length=32)]


#: The most that an episode shall cost.
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrainSettings(Spec):
    """Set how long, how and with what network PPO trains; every field has a working default."""

    unused: ClassVar[frozenset[str]] = frozenset()

    iterations: int = Field(600, ge=1, description="Training iterations; each gathers one batch and learns from it.")
    seed: int | None = Field(
        0, ge=0, le=2**31 - 1, description="Seed of networks, exploration and episodes; null draws one."
    )
    lr: float = Field(1e-3, gt=0, description="Learning rate of Adam.")
    lr_end: float | None = Field(
        5e-5, ge=0, description="Learning rate at the last iteration, reached linearly; null keeps `lr`."
    )
    lr_kl_target: float | None = Field(
        None,
        gt=0,
        description="Divide and multiply `lr` by 1.5 so that an iteration changes the policy by about this divergence, "
        "in place of `lr_end`; null: it goes by the iterations.",
    )
    train_batch_size: int = Field(1536, ge=1, description="Environment steps per iteration (16 days of 96 steps).")
    minibatch_size: int = Field(768, ge=1, description="Agent steps of one policy per gradient step.")
    num_epochs: int = Field(12, ge=1, description="Passes over the batch in one iteration.")
    gamma: float = Field(0.99, gt=0, le=1, description="Discount per step.")
    lambda_: float = Field(0.95, ge=0, le=1, description="Lambda of generalised advantage estimation.")
    bootstrap_horizon: bool = Field(
        True, description="Estimate what follows an episode's last step; false: nothing follows a day's end."
    )
    clip_param: float = Field(0.2, gt=0, description="PPO's clip of the probability ratio.")
    vf_clip_param: float | None = Field(
        None, gt=0, description="Cap on the squared value error, above which the value network gets no gradient."
    )
    vf_loss_coeff: float = Field(0.5, ge=0, description="Weight of the value loss.")
    entropy_coeff: float | None = Field(
        None, ge=0, description="Weight of the entropy bonus; null: 0.003, of a policy of positions alone 0.0005."
    )
    use_kl_loss: bool = Field(False, description="Add RLlib's adaptive KL penalty to the clipped loss.")
    kl_coeff: float = Field(0.2, ge=0, description="First coefficient of the KL penalty.")
    kl_target: float = Field(0.01, gt=0, description="KL divergence per iteration that the penalty aims at.")
    grad_clip: float | None = Field(None, gt=0, description="Largest norm of a policy's gradient; null: no limit.")
    hidden: Layers = Field((128, 128), min_length=1, description="Width of each hidden layer.")
    activation: Literal["tanh", "relu", "elu", "swish", "linear"] = Field("tanh", description="Hidden activation.")
    network: Literal["perceptron", "graph", "gru"] = Field(
        "perceptron",
        description="What policies are: a `perceptron` on all that is observed, one behind messages over the `graph` "
        "that agents observe, or one with a memory of the episode (`gru`).",
    )
    graph_width: int = Field(16, ge=1, le=16_384, description="Numbers that a bus holds, with `network: graph`.")
    graph_rounds: int = Field(
        2, ge=1, le=64, description="Rounds of messages, with `network: graph`: branches that a bus is heard over."
    )
    gru_width: int = Field(64, ge=1, le=16_384, description="Numbers that are remembered, with `network: gru`.")
    max_seq_len: int = Field(
        32,
        ge=1,
        le=100_000,
        description="Steps that a memory is learnt over at a time, with `network: gru`; what was remembered before is "
        "taken as it was.",
    )
    initial_log_std: float | None = Field(
        None,
        description="First spread of each continuous action, as its logarithm; null: -0.7, with `demonstrations` -1.6, "
        "with `proposals` -2.3.",
    )
    initial_neutral: float = Field(
        0.5,
        ge=0,
        le=1,
        description="How near the first policy is to leaving devices to themselves: 0 mid-range, 1 there.",
    )
    positions: Literal["standing", "absolute"] = Field(
        "standing",
        description="How a policy chooses a position: from where the device stands (`standing`), or whatever that is.",
    )
    free_log_std: bool = Field(True, description="Learn one spread per action, not one that depends on the state.")
    final_log_std: float | None = Field(
        None,
        description="The same at the last iteration, reached linearly whatever would be learnt; null: it is learnt.",
    )
    cost_limit: Limit | Annotated[dict[str, Limit], Field(min_length=1)] | None = Field(
        None,
        description="What an episode shall cost all agents at most, in the mean: a number for `cost`, or numbers by "
        "names of `costs.of`, in their units (node-h, branch-h, pu, kWh) over the episode; null: costs are left alone.",
    )
    cost_lr: float = Field(
        0.05, gt=0, le=10, description="How much the weight of a limited cost changes in an iteration at most."
    )
    curriculum: str | dict[Annotated[int, Field(ge=0)], dict[str, Any]] | None = Field(
        None,
        description="Ranges that episodes draw their numbers by, by the iterations done from which on they hold, or "
        "`module:function` that returns them, given these; null: the scenario's own.",
    )
    hard_days: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Part of the episodes that play days in proportion to what `rule_based` pays on them for "
        "violations and overloads; 0: all days alike.",
    )
    proposals_coeff: float = Field(
        0.0, ge=0, description="Weight in the loss of what is added to `proposals`, squared; 0: adding costs nothing."
    )
    proposals_deadband: float = Field(
        0.0, ge=0, lt=1, description="Half ranges from `proposals` within which an action is played as proposed."
    )
    proposals: Literal["rule_based"] | None = Field(
        None,
        description="Whose setpoints agents see (`proposals` of the scenario) and continuous actions are told from: "
        "policies learn what to add to those of `rule_based`; null: what the scenario says.",
    )
    demonstrations: str | None = Field(
        None,
        description="Whom the first policy imitates: `rule_based`, whose days are played then, or a folder of "
        "`powergrid demonstrate`; null: nobody.",
    )
    imitation_days: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Days that are played to be imitated; null: one for each iteration, at most 200.",
    )
    imitation_rounds: int = Field(
        10, ge=1, le=100, description="Rounds of imitation; from the second on policies learn from where they come to."
    )
    imitation_passes: int = Field(30, ge=1, le=10_000, description="Passes over all that was seen in each round.")
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
    envs_per_day: int = Field(
        1,
        ge=1,
        le=64,
        description="Environments of a process that play each day that is drawn; an action is then judged against what "
        "all of them got at that step.",
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
    validation_episodes: int = Field(8, ge=1, description="Episodes of one validation, on days all over its split.")
    validation_split: str = Field("validation", description="Split of the profiles that chooses the best checkpoint.")

    @property
    def cost_limits(self) -> dict[str, float]:
        """Limits by the names that infos have for what is limited."""
        if isinstance(self.cost_limit, dict):
            return {f"cost_{name}": limit for name, limit in self.cost_limit.items()}
        return {} if self.cost_limit is None else {"cost": self.cost_limit}

    @property
    def days_imitated(self) -> int:
        """Days that are played to be imitated, where anything is."""
        return self.imitation_days or min(self.iterations, 200)

    @model_validator(mode="after")
    def _observations_stay(self) -> TrainSettings:
        other = {"observation_filter": self.observation_filter != "none", "share_unequal": self.share_unequal}
        reads = {
            "demonstrations do not go": self.demonstrations is not None,
            "proposals do not go": self.proposals is not None,
            "network 'graph' reads observations as they are and does not go": self.network == "graph",
        }
        for said, asked in reads.items():
            if asked and any(other.values()):
                raise ValueError(f"{said} with {' and '.join(name for name, on in other.items() if on)}")
        return self

    @model_validator(mode="after")
    def _memory_can(self) -> TrainSettings:
        if self.network == "gru" and self.minibatch_size < self.max_seq_len:
            told = f"minibatch_size {self.minibatch_size} holds no sequence of max_seq_len {self.max_seq_len} steps"
            raise ValueError(f"{told}; give a max_seq_len of at most {self.minibatch_size}")
        return self

    @model_validator(mode="after")
    def _learner_can(self) -> TrainSettings:
        asked = [name for name in ("final_log_std", "lr_kl_target", "cost_limit") if getattr(self, name) is not None]
        asked += ["proposals_coeff"] if self.proposals_coeff else []
        if asked and self.learner == "stock":
            raise ValueError(f"{' and '.join(asked)}: RLlib's own learner does not do that; leave learner at 'grid'")
        if self.final_log_std is not None and not self.free_log_std:
            raise ValueError("final_log_std: a spread that depends on the state is learnt; leave free_log_std true")
        return self

    @model_validator(mode="after")
    def _days_can_be_alike(self) -> TrainSettings:
        if self.envs_per_day > 1 and "stock" in (self.learner, self.env_runner):
            raise ValueError("envs_per_day: RLlib's own runner and learner do not do that; leave both at 'grid'")
        if self.proposals_deadband and (self.env_runner == "stock" or self.demonstrations is not None):
            told = "neither RLlib's own runner (env_runner) nor what imitates (demonstrations) does that; set it to 0"
            raise ValueError(f"proposals_deadband: {told}")
        if (self.num_envs_per_env_runner or self.envs_per_day) % self.envs_per_day:
            told = f"num_envs_per_env_runner {self.num_envs_per_env_runner} is no multiple of envs_per_day"
            raise ValueError(f"{told} {self.envs_per_day}")
        return self

    @model_validator(mode="after")
    def _minibatch_fits_batch(self) -> TrainSettings:
        if self.minibatch_size > self.train_batch_size:
            raise ValueError(
                f"minibatch_size {self.minibatch_size} is larger than train_batch_size {self.train_batch_size}"
            )
        return self


_ONLY_ON_POLICY = frozenset(
    {"lr_end", "minibatch_size", "num_epochs", "lambda_", "clip_param", "vf_clip_param", "vf_loss_coeff"}
    | {"entropy_coeff", "use_kl_loss", "kl_coeff", "kl_target", "initial_log_std", "initial_neutral", "free_log_std"}
    | {"lr_kl_target", "final_log_std", "cost_limit", "cost_lr", "envs_per_day"}
    | {"network", "graph_width", "graph_rounds", "gru_width", "max_seq_len"}
    | {"positions", "bootstrap_horizon", "demonstrations", "imitation_days", "imitation_rounds", "imitation_passes"}
    | {"proposals", "proposals_coeff", "proposals_deadband"}
)  # fmt: skip


class MappoSettings(TrainSettings):
    """PPO's settings, and the critic's network."""

    critic_hidden: Layers = Field(
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
    hidden: Layers = Field((128, 128), min_length=1, description="Width of each hidden layer.")
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

    tau: float = Field(0.005, gt=0, le=1, description="Share of the networks in their targets after each update.")
    twin_q: bool = Field(True, description="Learn two Q networks and use the lesser one.")
    initial_alpha: float = Field(0.1, gt=0, description="First weight of the entropy.")
    alpha_lr: float = Field(3e-4, ge=0, description="Learning rate of the weight of the entropy.")
    target_entropy: float | Literal["auto"] = Field(
        "auto", description="Entropy that the weight is learnt for; `auto`: minus the number of actions."
    )


class DqnSettings(OffPolicySettings):
    """Deep Q-learning, for one discrete action."""

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


def _algorithm_of(settings: TrainSettings) -> str:
    """Return the name of the algorithm that settings are of."""
    return next(name for name, kind in SETTINGS.items() if kind is type(settings))


def _kind_of(algorithm: Any) -> type[TrainSettings]:
    """Return the class of an algorithm's settings, or raise where there is no such algorithm."""
    if not isinstance(algorithm, str) or algorithm not in SETTINGS:
        raise ScenarioError("algorithm", [describe_unknown("algorithm", algorithm, SETTINGS)])
    return SETTINGS[algorithm]


def fields_of(algorithm: str) -> list[str]:
    """Name the settings of an algorithm."""
    kind = _kind_of(algorithm)
    return [name for name in kind.model_fields if name not in kind.unused]


def dump_settings(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that the algorithm has, as JSON takes them."""
    return settings.model_dump(mode="json", include=set(fields_of(_algorithm_of(settings))))


def resolve_settings(
    algorithm: str, settings: Mapping[str, Any] | TrainSettings | None, base: TrainSettings | None = None
) -> tuple[TrainSettings, list[str]]:
    """Read the settings of an algorithm under current or older RLlib names.

    Args:
        algorithm: ``"ppo"``, ``"mappo"``, ``"sac"`` or ``"dqn"``.
        settings: What was asked for; ``preset`` names one of :data:`PRESETS`, which all else overrides.
        base: What holds where nothing was asked; the defaults where none is given.

    Returns:
        The settings, defaults where a value was refused, and one sentence for each problem.

    Raises:
        ScenarioError: There is no such algorithm.
    """
    kind = _kind_of(algorithm)
    if isinstance(settings, TrainSettings):
        if type(settings) is kind:
            return settings, []
        return kind(), [f"settings of {_algorithm_of(settings)} are none of {algorithm}"]
    asked = as_plain({} if settings is None else settings, "training settings")
    if not isinstance(asked, dict):
        raise ScenarioError("training settings", [f"a {type(settings).__name__} is not settings by their names"])
    came_as, problems = _read_names(algorithm, asked)
    values = {field: asked[name] for field, name in came_as.items()}
    preset: dict[str, Any] = PRESETS.get(str(values.pop("preset", None)), {})
    try:
        return kind(**((base.model_dump() if base else {}) | preset | values)), problems
    except ValidationError as error:
        for item in error.errors():
            field = str(item["loc"][0]) if item["loc"] else ""
            message = str(item["msg"]).removeprefix("Value error, ")
            problems.append(f"{came_as.get(field, field)} = {item['input']!r:.60}: {message}" if field else message)
        return kind(), problems


def _read_names(algorithm: str, asked: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return under which name each setting was asked for, and what an algorithm does not have."""
    fields = ["preset", *fields_of(algorithm)]
    aliases = [alias for alias, field in ALIASES.items() if field in fields]
    came_as: dict[str, str] = {}
    problems: list[str] = []
    for name, value in asked.items():
        field = ALIASES.get(name, name)
        owners = [other for other in SETTINGS if field in fields_of(other)]
        if field not in fields and owners:
            problems.append(f"{algorithm} has no setting {name!r}; it is one of {', '.join(owners)}")
        elif field not in fields:
            problems.append(describe_unknown("setting", name, [*fields, *aliases]))
        elif field in came_as:
            problems.append(f"{came_as[field]!r} and {name!r} are the same setting; give one")
        elif name == "preset" and value is not None and not (isinstance(value, str) and value in PRESETS):
            problems.append(describe_unknown("preset", value, PRESETS))
        elif name == "preset" and value not in (None, "fast") and issubclass(SETTINGS[algorithm], OffPolicySettings):
            problems.append(f"{algorithm} has no preset {value!r}; presets are of ppo and mappo")
        else:
            came_as[field] = name
    return came_as, problems


def make_settings(
    algorithm: str, settings: Mapping[str, Any] | TrainSettings | None = None, base: TrainSettings | None = None
) -> TrainSettings:
    """Return checked settings of an algorithm, or raise every problem at once; see :func:`resolve_settings`.

    Raises:
        ScenarioError: The algorithm or a name is unknown, the algorithm has no such setting, or a value is refused.
    """
    resolved, problems = resolve_settings(algorithm, settings, base)
    if problems:
        raise ScenarioError("training settings", problems)
    return resolved


def settings_of_run(algorithm: str, stored: Mapping[str, Any]) -> TrainSettings:
    """Return the settings that a run was begun with; of one before there was a choice, what it did."""
    older = {"positions": "absolute"} if "positions" in fields_of(algorithm) else {}
    return make_settings(algorithm, older | dict(stored))
