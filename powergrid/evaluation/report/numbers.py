"""What policies came to on the same days, as numbers with intervals; trainings of several seeds as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.statistics import (
    STATISTICS,
    Estimate,
    Interval,
    Profile,
    confidence_interval,
    difference_interval,
    estimate,
    performance_profile,
    probability_of_improvement,
)
from powergrid.quantities import EVALUATION

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]

#: What the penalty of days that diverged is called among the parts of a reward.
DIVERGED = "divergence"
#: What sums of many terms may be off by.
_ROUNDING = 1e-6
#: Columns of the summary, by how a quantity is summarised.
_SUFFIXES = {"per_day": "_per_day", "mean": "_mean", "max": "", "min": ""}


@dataclass(frozen=True)
class PlayedDays:
    """What several policies made of the same days; each of its names is a policy's, or a group's.

    Attributes:
        frame: One row for each policy and day; see ``docs/evaluation.md`` for the columns.
        kinds: ``baseline``, ``optimum`` or ``policy`` by name, in the order of evaluation.
        provenance: Scenario and its digest, profiles' digest, versions, split, days, seed; and ``seeds``, the seed of
            its training for each policy of which it is known.
        groups: Policies of one training with different seeds, by the name that they have together.
    """

    frame: pd.DataFrame
    kinds: Mapping[str, str]
    provenance: Mapping[str, Any]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What has a row in tables: baselines, and trained policies, those of one training together."""
        group = {member: name for name, members in self.groups.items() for member in members}
        return tuple(dict.fromkeys(group.get(name, name) for name in self.kinds))

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the highest mean reward, None where none was played."""
        baselines = [name for name, kind in self.kinds.items() if kind == "baseline"]
        return max(baselines, key=lambda name: self.reward(name).mean, default=None)

    @property
    def optimum(self) -> str | None:
        """What played the days knowing them beforehand, None where nothing did."""
        return next((name for name, kind in self.kinds.items() if kind == "optimum"), None)

    def rewards(self, name: str) -> FloatArray:
        """Return the rewards of episodes, mean over agents, of a policy or a group, shape (n_seeds, n_days)."""
        days = self.provenance["days"]
        by_policy = (self._of(member).set_index("day")["reward"].loc[days] for member in self._members(name))
        return np.array([rewards.to_numpy(dtype=np.float64) for rewards in by_policy])

    def reward(self, policy: str) -> Interval:
        """Return a policy's or a group's mean reward of an episode, over agents, seeds and days, with its interval."""
        return confidence_interval(self.rewards(policy))

    def difference(self, policy: str, other: str) -> Interval:
        """Return by how much a policy's reward is higher than another's, paired day by day, with its interval."""
        # Days differ far more by season than by policy: the difference on each day is what tells policies apart.
        return difference_interval(self.rewards(policy), self.rewards(other))

    # -- beside the optimum

    def score(self, policy: str) -> float | None:
        """Return how much of what lies between ``no_control``, 0, and the optimum, 1, a policy reaches.

        Of mean rewards; None where one of the two was not played, or nothing lies between them.
        """
        scores = self.scores(policy) if self.optimum is not None else None
        return None if scores is None else float(scores.mean())

    @property
    def reference(self) -> str | None:
        """Who has a score of 1: the optimum, the best baseline where it was not played."""
        return self.optimum or self.best_baseline

    @property
    def scale(self) -> tuple[str, str]:
        """What scores of 0 and of 1 are, in a word each."""
        return "no_control", str(self.reference)

    def scores(self, policy: str) -> FloatArray | None:
        """Return a score for each seed and day, shape (n_seeds, n_days), whose mean is the score.

        A day's is 1 less its regret, in parts of what the :attr:`reference` gains over ``no_control`` in the mean of
        all days: so it is 1 where nothing is left to gain, and a day on which little is to be had does not count for
        more than one on which there is much. None where ``no_control`` was not played, or the reference gains nothing.
        """
        if self.reference is None or "no_control" not in self.kinds:
            return None
        best, nothing = self.rewards(self.reference), self.rewards("no_control")
        span = float(best.mean() - nothing.mean())
        return 1.0 - (best - self.rewards(policy)) / span if span > 0.0 else None

    def regret_usd(self, policy: str) -> Interval:
        """Return what a policy's episode costs all agents above the optimum's [USD], paired by day.

        Raises:
            ValueError: The optimum was not played.
        """
        if self.optimum is None:
            raise ValueError("the optimum was not played")
        n_agents = sum(column.startswith("reward:") for column in self.frame.columns)
        short, usd = self.difference(self.optimum, policy), n_agents / self.provenance["reward_scale"]
        return Interval(short.mean * usd, short.half * usd)

    # -- over seeds and days

    def score_statistics(self, policy: str) -> dict[str, Estimate] | None:
        """Return mean, interquartile mean, median and optimality gap of the scores, with intervals; None as scores."""
        scores = self.scores(policy)
        return None if scores is None else {name: estimate(scores, how) for name, how in STATISTICS.items()}

    def improvement(self, policy: str, other: str) -> Estimate:
        """Return how probable it is that a training of a policy has a higher reward on a day than one of another."""
        return probability_of_improvement(self.rewards(policy), self.rewards(other))

    def profiles(self) -> dict[str, Profile]:
        """Return by name which part of seeds and days is above each score; nothing where there are no scores.

        Thresholds lie evenly from the second lowest percentile of all scores up to the highest.
        """
        scores = {name: own for name in self.names if (own := self.scores(name)) is not None}
        if not scores:
            return {}
        # The scale is that of who matters: what chance comes to would leave all others a line at the end.
        told = [own for name, own in scores.items() if name != "random"] or list(scores.values())
        low, high = min(float(np.quantile(own, 0.02)) for own in told), max(float(own.max()) for own in told)
        thresholds = np.linspace(min(low, 0.0), high + 1e-9, 101)
        return {name: performance_profile(own, thresholds) for name, own in scores.items()}

    # -- all measures

    def reward_parts(self, policy: str) -> dict[str, float]:
        """Return what each term with a weight adds to a policy's mean reward of an episode, negative where it costs.

        They add up to it; what is left, the penalty of days that diverged, is ``divergence``.
        """
        rows, weights = self._of(policy), self.provenance["reward_weights"]
        n_agents = sum(column.startswith("reward:") for column in rows.columns)
        parts = {
            term: -weight * float(rows[term].mean()) / n_agents
            for term, weight in weights.items()
            if weight and term in rows
        }
        left = self.reward(policy).mean - sum(parts.values())
        return parts if abs(left) < _ROUNDING else {**parts, DIVERGED: left}

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return means over days, sums as of 24 hours, the worst of all days, and rewards with intervals, by policy."""
        return {name: self.summarise(name) for name in self.kinds}

    def summarise(self, name: str) -> dict[str, Any]:
        """Return what :meth:`summary` has of a policy for one, or for a group."""
        best, reward, seeds = self.best_baseline, self.reward(name), self.seeds_of(name)
        found: dict[str, Any] = {
            "kind": self.kinds[self._members(name)[0]],
            **({"seeds": seeds} if seeds else {}),
            "reward_mean": reward.mean,
            "reward_half_interval": reward.half,
        }
        if best is not None and name != best:
            gain = self.difference(name, best)
            found |= {"reward_over_best_baseline": gain.mean, "reward_over_best_baseline_half_interval": gain.half}
            found["better_than_best_baseline"] = self.improvement(name, best)._asdict()
        if self.optimum is not None:
            regret, told = self.regret_usd(name), self.score_statistics(name) or {}
            found |= {"score": self.score(name), "regret_usd": regret.mean, "regret_usd_half_interval": regret.half}
            found["scores"] = {statistic: of._asdict() for statistic, of in told.items()}
        return found | self.measure(name)

    def measure(self, name: str) -> dict[str, Any]:
        """Return a policy's or a group's measures: means over seeds and days, sums as of 24 hours, the worst of all."""
        rows = self._of(name)
        to_day = 24.0 / rows["hours"]  # an episode may be shorter than a day, or cut short by divergence
        found: dict[str, Any] = {"days": len(rows), "finished_days": int(rows["finished"].sum())}
        for how, suffix in _SUFFIXES.items():
            for column in (quantity.name for quantity in EVALUATION if quantity.summarised == how):
                if column not in rows:
                    continue
                values = rows[column] * to_day if how == "per_day" else rows[column]
                found[column + suffix] = float(values.agg("mean" if how == "per_day" else how))
        found["worst_node"] = str(rows["worst_node"].to_list()[int(rows["violation_max_pu"].to_numpy().argmax())])
        return found

    def seeds_of(self, name: str) -> list[int]:
        """Return the seeds of the trainings of a policy or a group, none of those that tell none."""
        seeds: Mapping[str, int] = self.provenance.get("seeds", {})
        return [seeds[member] for member in self._members(name) if member in seeds]

    def _members(self, name: str) -> Sequence[str]:
        return self.groups.get(name, (name,))

    def _of(self, name: str) -> pd.DataFrame:
        return self.frame[self.frame["policy"].isin(self._members(name))]
