"""A policy beside others on the same days: differences with intervals, and the verdict that follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from powergrid.evaluation.statistics import Interval, confidence_interval
from powergrid.quantities import MEASURES, Quantity

if TYPE_CHECKING:
    import pandas as pd

#: What a reader calls measures, and what has less of them.
WORDS = {
    "range_a_node_hours": ("node-hours outside range A", "fewer", "more"),
    "range_b_node_hours": ("node-hours outside range B", "fewer", "more"),
    "longest_a_h": ("hours in a row outside range A at the worst node", "fewer", "more"),
    "unbalance_hours": ("hours with unbalance above 3 %", "fewer", "more"),
    "tap_moves": ("tap moves", "fewer", "more"),
    "bank_moves": ("capacitor steps switched", "fewer", "more"),
    "overload_branch_hours": ("branch-hours above rating", "fewer", "more"),
    "losses_kwh": ("kWh of losses", "fewer", "more"),
    "import_kwh": ("kWh imported", "fewer", "more"),
    "import_peak_kw": ("kW of peak import", "fewer", "more"),
    "cost_usd": ("USD for energy, fuel and wear", "fewer", "more"),
    "curtailed_kwh": ("kWh of sun not used", "fewer", "more"),
    "unserved_kwh": ("kWh not served", "fewer", "more"),
    "storage_cycles": ("battery cycles", "fewer", "more"),
}
#: Mean differences of a day below these matter to nobody, however sure they are, by unit.
LEAST = {"node-h": 0.1, "branch-h": 0.1, "h": 0.1, "moves": 0.1, "kWh": 1.0, "kW": 1.0, "USD": 0.5, "cycles": 0.05}
#: Above it a difference in percent says only that there was next to nothing.
_MOST_PERCENT = 1000.0
#: What readers call the policies that come with us.
NAMES = {
    "native": "the feeder's own controls",
    "no_control": "no control",
    "rule_based": "engineers' rules",
    "random": "chance",
}


def name_title(policies: Iterable[str], rest: str) -> str:
    """Return what begins with policies as a title: names of runs and scenarios as they are, ours with a capital."""
    first, *others = (NAMES.get(name, name) for name in policies)
    first = first[0].upper() + first[1:] if first in NAMES.values() else first
    return f"{', '.join([first, *others])} {rest}"


@dataclass(frozen=True)
class Comparison:
    """One measure of a policy beside another's on the same days.

    Attributes:
        measure: The measure; less is better.
        mine, theirs: Means over the days.
        difference: Mean of the paired differences, mine less theirs, with half its 95 % interval.
        n_days: Days that were compared.
    """

    measure: Quantity
    mine: float
    theirs: float
    difference: Interval
    n_days: int

    @property
    def sign(self) -> int:
        """Which way it is: -1 where the interval lies below 0 (better), 1 above (worse), 0 where days do not tell."""
        mean, half = self.difference
        if not np.isfinite(half) or abs(mean) < LEAST.get(self.measure.unit, 0.0):
            return 0  # one day tells nothing, and what is too small for anybody to mind is no gain
        return -1 if mean + half < 0.0 else 1 if mean - half > 0.0 else 0

    @property
    def percent(self) -> float:
        """The difference in parts of theirs [%], NaN where that is 0."""
        return 100.0 * self.difference.mean / abs(self.theirs) if abs(self.theirs) > 1e-9 else float("nan")

    @property
    def empty(self) -> bool:
        """Whether neither has any of it on any day."""
        return self.mine == self.theirs == self.difference.mean == 0.0

    def say_percent(self) -> str:
        """Return the difference in percent of theirs, empty where theirs is 0 or next to nothing."""
        if not 0.05 <= abs(self.percent) < _MOST_PERCENT:
            return ""
        digits = 0 if abs(self.percent) >= 0.95 else 1
        return f"{self.percent:+.{digits}f} %".replace("-", "\N{MINUS SIGN}")

    def say(self) -> str:
        """Return the difference in words, with its interval."""
        what, less, more = WORDS[self.measure.name]
        mean, half = self.difference
        low, high = sorted((abs(mean) - half, abs(mean) + half))
        percent = f", {self.say_percent()}" if self.say_percent() else ""
        interval = f"{write_number(low)} to {write_number(high)}{percent}"
        return f"{write_number(abs(mean))} {less if mean < 0.0 else more} {what} a day ({interval})"


@dataclass(frozen=True)
class Sentence:
    """One thing that may be said of a policy.

    Attributes:
        text: The sentence, or what begins it.
        better, worse: What it lists, one difference each.
    """

    text: str
    better: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.text} {'; '.join((*self.better, *self.worse))}." if self.better or self.worse else self.text


def compare(days: pd.DataFrame, policy: str, other: str, measures: Sequence[Quantity] = MEASURES) -> list[Comparison]:
    """Return every measure of a policy beside another's, paired day by day; days that one did not finish are left out.

    Args:
        days: A row for each policy and day, with the columns of a study.
        policy, other: Their names.
        measures: What is compared.
    """
    solved = days[days["finished"] & (days["converged_share"] == 1.0)]
    mine, theirs = (solved[solved["policy"] == name].set_index("day") for name in (policy, other))
    both = mine.index.intersection(theirs.index)
    found = []
    for measure in measures if len(both) else ():
        one, two = mine.loc[both, measure.name], theirs.loc[both, measure.name]
        # differences below what the solver tells apart are none
        gap = (one - two).where((one - two).abs() > 1e-9 * np.maximum(one.abs(), two.abs()), 0.0)
        found.append(Comparison(measure, float(one.mean()), float(two.mean()), confidence_interval(gap), len(both)))
    return found


def judge(days: pd.DataFrame, policy: str, others: Sequence[str], seen: Mapping[str, str]) -> list[Sentence]:
    """Return what may be said of a policy beside others; nothing that the days do not tell.

    Args:
        days: A row for each policy and day, with the columns of a study.
        policy: Whom it is about.
        others: Whom to compare with, in the order of importance.
        seen: What has to be said of the days, such as that the policy was trained on some, by policy.
    """
    sentences = [Sentence(_introduce(days, policy, others))]
    if policy in seen:
        sentences.append(Sentence(seen[policy]))
    for other in others:
        comparisons = [each for each in compare(days, policy, other) if not each.empty]
        sentences += _weigh(other, comparisons)
    own = days[days["policy"] == policy]
    if not own["finished"].all():
        n = int((~own["finished"]).sum())
        left_out = "the power flow diverged; they are left out of the differences"
        sentences.append(Sentence(f"{n} of its {len(own)} days were not finished: {left_out}."))
    return sentences


def _introduce(days: pd.DataFrame, policy: str, others: Sequence[str]) -> str:
    """Say what everybody came to by the one measure that matters first."""
    means = days.groupby("policy")["range_a_node_hours"].mean()
    n = days[days["policy"] == policy]["day"].nunique()
    told = ", ".join(f"{NAMES.get(name, name)} {write_number(means[name])}" for name in others)
    lead = f"On {n} {'day' if n == 1 else 'days'} {NAMES.get(policy, policy)} had {write_number(means[policy])}"
    return f"{lead} node-hours a day outside range A of ANSI C84.1" + (f"; {told}." if told else ".")


def _weigh(other: str, comparisons: Sequence[Comparison]) -> list[Sentence]:
    """Say how a policy stands beside another: what is better, what worse, and what the days do not tell."""
    name = NAMES.get(other, other)
    if not comparisons:
        return [Sentence(f"There is no day that both it and {name} finished, so they are not compared.")]
    better, worse, even = ([each for each in comparisons if each.sign == sign] for sign in (-1, 1, 0))
    n = comparisons[0].n_days
    if n == 1:
        return [Sentence(f"One day does not tell it from {name}: play more days.")]
    if not better and not worse:
        return [Sentence(f"Nothing tells it from {name} on these {n} days.")]
    if not better:
        head = f"Nothing is gained over {name}, and it is worse:"
    elif not worse:
        head = f"Better than {name}:"
    else:
        head = f"A trade against {name}:"
    told = (tuple(each.say() for each in group) for group in (better, worse))
    sentences = [Sentence(head, *told)]
    by_name = {each.measure.name: each for each in comparisons}
    voltage = by_name.get("range_a_node_hours")
    if voltage is None or voltage.theirs == 0.0:
        inside = "all nodes are inside range A on all days there"
        sentences.append(Sentence(f"There is no voltage to mend beyond {name}: {inside}."))
    if even:
        what = ", ".join(WORDS[each.measure.name][0] for each in even)
        sentences.append(Sentence(f"Not told apart from {name}: {what}."))
    return sentences


def write_number(value: float, *, sign: bool = False) -> str:
    """Write a number with as many digits as a reader wants, a true minus, and a plus where asked for."""
    size = abs(value)
    digits = 0 if size >= 100.0 else 1 if size >= 1.0 or size < 1e-9 else 2
    text = f"{size:,.{digits}f}"
    head = "\N{MINUS SIGN}" if value < 0.0 and size >= 1e-9 else "+" if sign and size >= 1e-9 else ""
    return head + text
