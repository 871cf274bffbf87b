"""GridPPOLearner: RLlib's PPO learner with less work around each minibatch; the same losses, gradients and order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tree
from ray.rllib.algorithms.ppo import ppo as names
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import ALL_MODULES
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO
from ray.rllib.utils.torch_utils import explained_variance

from powergrid.training.rllib.learning.limits import CostLimits
from powergrid.training.rllib.learning.same_days import DayBaselines
from powergrid.training.rllib.metrics import EPISODE_COST, MULTIPLIER


class Rows(dict[str, Any]):
    """Columns of one policy's rows; like RLlib's ``SampleBatch``, it is as long as its rows are many."""

    def __init__(self, columns: Mapping[str, Any], count: int) -> None:
        super().__init__(columns)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return True

    def enable_slicing_by_batch_id(self) -> None:
        """Do nothing: RLlib asks for it of sequences, and what it slices its own batches for is done."""

    disable_slicing_by_batch_id = enable_slicing_by_batch_id


@dataclass(frozen=True)
class Minibatch:
    """What one gradient step learns from: rows by policy, as RLlib's ``MultiAgentBatch`` holds them."""

    policy_batches: dict[str, Rows]
    steps: int

    def env_steps(self) -> int:
        """Return the environment steps of the whole batch, which RLlib counts for each minibatch."""
        return self.steps


class Minibatches:
    """Go through the rows of every policy in passes, as RLlib's ``MiniBatchCyclicIterator`` does.

    Every minibatch has ``minibatch_size`` rows of each policy; one that reaches the end of a pass goes on with the
    first rows of the next. Where rows are sequences of steps, there are as many as have so many steps.

    Args:
        batches: Columns of tensors by policy, rows first.
        env_steps: Environment steps of the batch.
        minibatch_size: Agent steps of each policy in a minibatch.
        num_epochs: Passes over the rows of every policy, at least.
        shuffle: Whether to shuffle after each pass.
        num_minibatches: Number of minibatches; 0 for as many as the passes take.
    """

    def __init__(
        self,
        batches: Mapping[str, Mapping[str, Any]],
        env_steps: int,
        *,
        minibatch_size: int,
        num_epochs: int,
        shuffle: bool,
        num_minibatches: int = 0,
    ) -> None:
        self._columns = {policy: dict(columns) for policy, columns in batches.items()}
        self._sizes = {policy: _count(columns) for policy, columns in self._columns.items()}
        steps = {policy: _steps_of_row(columns) for policy, columns in self._columns.items()}
        self._wanted = {policy: max(minibatch_size // own, 1) for policy, own in steps.items()}
        self._count = {policy: own * self._wanted[policy] for policy, own in steps.items()}
        self._env_steps, self._shuffle = env_steps, shuffle
        self._num_epochs, self._num_minibatches = num_epochs, num_minibatches

    def __iter__(self) -> Iterator[Minibatch]:
        start, passes, given = dict.fromkeys(self._columns, 0), dict.fromkeys(self._columns, 0), 0
        while given < self._num_minibatches or (not self._num_minibatches and min(passes.values()) < self._num_epochs):
            rows: dict[str, Rows] = {}
            for policy, size in self._sizes.items():
                parts: list[Any] = []
                begin, wanted = start[policy], self._wanted[policy]
                while begin + wanted >= size:
                    parts.append(self._slice(policy, begin, size))
                    wanted -= size - begin
                    begin = 0
                    passes[policy] += 1
                    if self._shuffle:
                        self._permute(policy)
                if wanted:
                    parts.append(self._slice(policy, begin, begin + wanted))
                start[policy] = begin + wanted
                rows[policy] = Rows(parts[0] if len(parts) == 1 else _join(parts), self._count[policy])
            yield Minibatch(rows, self._env_steps)
            given += 1

    def _slice(self, policy: str, begin: int, end: int) -> dict[str, Any]:
        return {
            name: values[begin:end]
            if isinstance(values, torch.Tensor)
            else tree.map_structure(lambda part: part[begin:end], values)
            for name, values in self._columns[policy].items()
        }

    def _permute(self, policy: str) -> None:
        # by NumPy's global generator, which RLlib shuffles by, in its order of draws
        order = torch.from_numpy(np.random.permutation(self._sizes[policy]))  # noqa: NPY002 (RLlib's own draws)
        self._columns[policy] = tree.map_structure(
            lambda values: values[order.to(values.device)], self._columns[policy]
        )


def _count(columns: Mapping[str, Any]) -> int:
    return len(tree.flatten(columns)[0])


def _steps_of_row(columns: Mapping[str, Any]) -> int:
    return int(columns[Columns.LOSS_MASK].shape[1]) if Columns.SEQ_LENS in columns else 1


def _columns_to_learn_from(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns that a loss reads, of sequences those that have a step to learn from."""
    columns = {name: values for name, values in rows.items() if name != Columns.INFOS}
    if Columns.SEQ_LENS not in columns:
        return columns
    # what only follows an episode is there for the value of it, which is reckoned by now
    there = columns[Columns.LOSS_MASK].any(1)
    kept: dict[str, Any] = tree.map_structure(lambda values: values[there], columns)
    return kept


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = tree.map_structure(lambda *values: torch.cat(values), *parts)
    return joined


_StockLearner: Any = PPOTorchLearner
#: By what a learning rate changes that goes by divergence, and within what.
_LR_FACTOR, _LR_LEAST, _LR_MOST = 1.5, 1e-6, 1e-2
#: Where a learner's state has how much limited costs weigh.
_LIMITS = "cost_limits"
_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class GridPPOLearner(_StockLearner):  # type: ignore[misc]
    """Learn what RLlib's ``PPOTorchLearner`` learns from the same episodes, within rounding, in less time.

    Minibatches are slices of tensors and come in RLlib's order, from the same draws. Losses are logged for the last
    one alone, the only one whose losses RLlib keeps; gradients are tested for being finite all at once; Adam is
    torch's fused one. It takes as many policies, learners (``num_learners``) and devices as RLlib's does.

    Costs that are kept to limits (``learner_config_dict["cost_limits"]``, what :class:`CostLimits` takes) are taken
    out of the rewards of what was sampled; several learners lead weights of their own, each by its part.

    Plug it in with ``config.learners(learner_class=GridPPOLearner)``.
    """

    # Why it goes behind RLlib's doors: at the default settings on IEEE 13 an update takes 0.27 s of a thread where
    # RLlib's takes 0.36, a fifth of a whole iteration; at those of the Training page, of minibatches of 128 rows, 1.5 s
    # where RLlib's takes 2.5 (Ray 2.60, torch 2.13, one thread). Logging per minibatch and clearing gradients brought
    # less than a tenth and are RLlib's again.

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._told = True  # whether the minibatch under way is the one whose losses are logged
        self._moved: dict[str, Any] = {}  # by policy, how far the last minibatch is from what acted
        limited = self.config.learner_config_dict.get("cost_limits")
        #: What keeps costs to limits; None where there are none.
        self.limits = CostLimits(**limited) if limited else None

    def build(self) -> None:
        """Build what RLlib builds; behind its estimate of advantages comes what environments of one day share."""
        super().build()
        if self.config.learner_config_dict.get("envs_per_day", 1) > 1:
            self._learner_connector.append(DayBaselines())

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register RLlib's optimizer of a policy, Adam, as the one kernel that torch has for it."""
        params = self.get_parameters(self.module[module_id])
        fused = all(param.dtype is torch.float32 and param.device.type in ("cpu", "cuda") for param in params)
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(params, fused=fused),
            params=params,
            lr_or_lr_schedule=config.lr,
        )

    # -- minibatches

    def _create_iterator_if_necessary(
        self,
        *,
        training_data: Any,
        num_total_minibatches: int = 0,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        shuffle_batch_per_epoch: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return minibatches as RLlib does, by slices; those of data sets are RLlib's own."""
        self._told = True
        if self.limits is not None and training_data.episodes:
            for name, cost in self.limits.take(training_data.episodes).items():
                self.metrics.log_value((ALL_MODULES, EPISODE_COST, name), cost, window=1)
                self.metrics.log_value((ALL_MODULES, MULTIPLIER, name), self.limits.multipliers[name], window=1)
        if training_data.data_iterators is None:
            training_data = TrainingData(batch=self._make_batch_if_necessary(training_data=training_data))
        batch = training_data.batch
        if batch is None or not minibatch_size:
            return super()._create_iterator_if_necessary(
                training_data=training_data,
                num_total_minibatches=num_total_minibatches,
                num_epochs=num_epochs,
                minibatch_size=minibatch_size,
                shuffle_batch_per_epoch=shuffle_batch_per_epoch,
                **kwargs,
            )
        columns = {
            policy: _columns_to_learn_from(rows)
            for policy, rows in batch.policy_batches.items()
            if len(rows) and self.should_module_be_updated(policy, batch)
        }
        return self._announce_last(
            Minibatches(
                columns,
                batch.env_steps(),
                minibatch_size=minibatch_size,
                num_epochs=num_epochs,
                shuffle=shuffle_batch_per_epoch and num_epochs > 1,
                num_minibatches=num_total_minibatches,
            )
        )

    def _announce_last(self, minibatches: Minibatches) -> Iterator[Minibatch]:
        """Return minibatches one behind, so as to know the last, whose losses are the ones that stay."""
        self._told = False
        waiting = None
        for minibatch in minibatches:
            if waiting is not None:
                for rows in waiting.policy_batches.values():
                    rows.pop(WEIGHTS_SEQ_NO, None)  # from which RLlib logs the age of what is learnt from
                yield waiting
            waiting = minibatch
        self._told = True
        if waiting is not None:
            yield waiting

    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state, with how much limited costs weigh."""
        state: dict[str, Any] = super().get_state(components, **kwargs)
        return state if self.limits is None else {**state, _LIMITS: self.limits.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up a state; in one of a run without limits, they begin to weigh."""
        super().set_state(state)
        if self.limits is not None and _LIMITS in state:
            self.limits.set_state(state[_LIMITS])

    # -- a minibatch

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Any], fwd_out: Mapping[str, Any]
    ) -> Any:
        """Return PPO's loss of a policy, the sum of RLlib's terms, and of what is added to proposals at its price.

        Source:
            Schulman et al., Proximal Policy Optimization Algorithms, 2017, equations 7 and 9.
        """
        module = self.module[module_id].unwrapped()
        mask = batch.get(Columns.LOSS_MASK)
        mean = _mean_of(mask)
        logp, entropy = _logp_and_entropy(module, fwd_out[Columns.ACTION_DIST_INPUTS], batch[Columns.ACTIONS])
        change = logp - batch[Columns.ACTION_LOGP]
        if mask is not None:  # the step after an episode's last has no action of its own: any ratio might come of it
            change = change.masked_fill(~mask, 0.0)
        ratio = change.exp()
        advantages = batch[Postprocessing.ADVANTAGES]
        gain = torch.min(
            advantages * ratio, advantages * ratio.clamp(1.0 - config.clip_param, 1.0 + config.clip_param)
        )  # fmt: skip
        coeff = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        loss = -gain - coeff * entropy
        terms = {POLICY_LOSS_KEY: -gain, ENTROPY_KEY: entropy}
        values = None
        if config.use_critic:
            values = module.compute_values(batch, embeddings=fwd_out.get(Columns.EMBEDDINGS))
            error = (values - batch[Postprocessing.VALUE_TARGETS]).square()
            clipped = error if config.vf_clip_param == math.inf else error.clamp(0.0, config.vf_clip_param)
            loss = loss + config.vf_loss_coeff * clipped
            terms |= {VF_LOSS_KEY: clipped, names.LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY: error}
        total = mean(loss)
        if config.use_kl_loss:
            divergence = _divergence(module, batch[Columns.ACTION_DIST_INPUTS], fwd_out[Columns.ACTION_DIST_INPUTS])
            terms[names.LEARNER_RESULTS_KL_KEY] = divergence
            total = total + self.curr_kl_coeffs_per_module[module_id] * mean(divergence)
        price = self.config.learner_config_dict.get("proposals_coeff", 0.0)
        if price and module.proposed is not None:
            added = module.proposed.added(fwd_out[Columns.ACTION_DIST_INPUTS], batch[Columns.OBS])
            total = total + price * mean(added.square().sum(-1))
        if self._told:
            self._moved[module_id] = mean(ratio.detach() - 1.0 - change.detach())
            self._log_terms(module_id, {name: mean(term.detach()) for name, term in terms.items()}, values, batch)
        return total

    def _log_terms(self, module_id: str, terms: dict[str, Any], values: Any, batch: Mapping[str, Any]) -> None:
        targets = batch[Postprocessing.VALUE_TARGETS]
        nothing = torch.zeros((), device=targets.device)
        for name in (VF_LOSS_KEY, names.LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY, names.LEARNER_RESULTS_KL_KEY):
            terms.setdefault(name, nothing)
        found = nothing if values is None else values.detach()
        if targets.ndim > 1 and values is not None:  # sequences, padded
            targets, found = targets[batch[Columns.LOSS_MASK]], found[batch[Columns.LOSS_MASK]]
        terms[names.LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY] = explained_variance(targets, found)
        self.metrics.log_dict(terms, key=module_id, window=1)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Do what RLlib does after an update, then set spreads and learning rates that the settings lead.

        Source:
            Rudin et al., Learning to Walk in Minutes Using Massively Parallel Deep Reinforcement Learning, CoRL 2021,
            on the learning rate by divergence, which is estimated as Schulman's ``k3``.
        """
        optimizers = {name: self.get_optimizers_for_module(name) for name in self.module.keys()}  # noqa: SIM118
        rates = {name: own[0][1].param_groups[0]["lr"] for name, own in optimizers.items()}
        super().after_gradient_based_update(timesteps=timesteps)  # which sets the configuration's rate again
        asked: dict[str, Any] = self.config.learner_config_dict
        led, target = asked.get("log_std"), asked.get("lr_kl_target")
        for name, own in optimizers.items():
            free = getattr(self.module[name].unwrapped().pi, "log_std", None)
            if led is not None and free is not None:
                first, last, steps = led
                free.data.fill_(first + (last - first) * min(timesteps[NUM_ENV_STEPS_SAMPLED_LIFETIME] / steps, 1.0))
            if target is not None and name in self._moved:
                moved = float(self._moved[name])
                factor = 1.0 / _LR_FACTOR if moved > 2.0 * target else _LR_FACTOR if moved < 0.5 * target else 1.0
                for group in (group for _, optimizer in own for group in optimizer.param_groups):
                    group["lr"] = min(max(rates[name] * factor, _LR_LEAST), _LR_MOST)

    def apply_gradients(self, gradients_dict: Mapping[Any, Any]) -> None:
        """Step the optimizers; where a gradient is not finite, do what RLlib does."""
        # RLlib tests the gradient of every parameter by itself, twice, which takes longer than the backward pass
        plain = self._grad_scalers is None and self._lr_scheduler_classes is None
        if not plain or not (self.config.torch_skip_nan_gradients or _all_finite(gradients_dict.values())):
            super().apply_gradients(gradients_dict)
            return
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule is no dict)
            for _, optimizer in self.get_optimizers_for_module(module_id):
                for group in optimizer.param_groups:
                    for param in group["params"]:
                        param.grad = gradients_dict.get(self.get_param_ref(param))
                optimizer.step()


def _mean_of(mask: Any) -> Callable[[Any], Any]:
    """Return the mean over the rows that count: all of them, or those of a mask."""
    if mask is None:
        return torch.mean
    count = mask.sum()
    return lambda values: torch.where(mask, values, 0.0).sum() / count


def _logp_and_entropy(module: Any, inputs: Any, actions: Any) -> tuple[Any, Any]:
    """Return actions' log-probabilities and the distributions' entropies, each of shape (rows,)."""
    kind = module.get_train_action_dist_cls()
    if kind is not TorchDiagGaussian:
        distribution = kind.from_logits(inputs)
        return distribution.logp(actions), distribution.entropy()
    mean, log_std = inputs.chunk(2, dim=-1)
    scaled = (actions - mean) * torch.exp(-log_std)
    n, spread = mean.shape[-1], log_std.sum(-1)
    logp = -0.5 * scaled.square().sum(-1) - spread - n * _HALF_LOG_TWO_PI
    return logp, spread + n * (0.5 + _HALF_LOG_TWO_PI)


def _divergence(module: Any, before: Any, now: Any) -> Any:
    """Return the Kullback-Leibler divergence of what acted from what is learnt, shape (rows,)."""
    kinds = module.get_exploration_action_dist_cls(), module.get_train_action_dist_cls()
    if kinds != (TorchDiagGaussian, TorchDiagGaussian):
        acted, learnt = (kind.from_logits(inputs) for kind, inputs in zip(kinds, (before, now), strict=True))
        return acted.kl(learnt)
    (mean, log_std), (new_mean, new_log_std) = before.chunk(2, dim=-1), now.chunk(2, dim=-1)
    spread = new_log_std - log_std
    moved = (mean - new_mean) * torch.exp(-new_log_std)
    return (0.5 * (torch.exp(-2.0 * spread) + moved.square() - 1.0) + spread).sum(-1)


def _all_finite(gradients: Iterable[Any]) -> bool:
    """Whether every entry is finite: a sum of squares is so only then, and where it overflows RLlib's test decides."""
    given = [grad for grad in gradients if grad is not None]
    return not given or bool(torch.isfinite(torch.nn.utils.get_total_norm(given)))
