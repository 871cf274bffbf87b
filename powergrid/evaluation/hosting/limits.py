"""The limits that what is added must not break, each with its source, and what is new beside the base case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.evaluation.hosting.play import Played
from powergrid.quantities import ANSI_RANGES

FloatArray = npt.NDArray[np.float64]

#: What is beyond a limit by less counts as at it [pu, kW]: 12 mV of 120 V, ten times what the power flow is solved to.
_NOISE = 1e-4


@dataclass(frozen=True)
class Limit:
    """A limit, and what breaks it.

    Attributes:
        name: As users pick it.
        quantity: What is looked at: an array of :class:`Played`.
        high: What it must not be above.
        low: What it must not be below, if anything.
        unit: Unit of the three.
        meaning: In a planner's words.
        source: Where the number comes from.
    """

    name: str
    quantity: str
    high: float
    unit: str
    meaning: str
    source: str
    low: float = -np.inf

    def say(self) -> str:
        """Return the limit in numbers."""
        low = f"{self.low:.4g} to " if np.isfinite(self.low) else ""
        return f"{low}{self.high:.4g} {self.unit}"


def _ansi(letter: str) -> Limit:
    low, high = ANSI_RANGES[letter]
    return Limit(
        f"ansi_{letter.lower()}", "v_pu", high, "pu", f"node voltage within range {letter}",
        f"ANSI C84.1-2020, service voltage, range {letter}, for 600 V and less, of all nodes", low,
    )  # fmt: skip


#: The limits by name.
LIMITS = {
    limit.name: limit
    for limit in (
        _ansi("A"),
        _ansi("B"),
        Limit(
            "thermal", "loading_pu", 1.0, "pu", "current of lines and transformers within their normal rating",
            "NormAmps of the model; how such ratings come about: IEEE Std 738 (lines), IEEE Std C57.91 (transformers)",
        ),
        Limit(
            "unbalance", "unbalance_pu", 0.03, "pu",
            "farthest line-to-line voltage of a three-phase bus from their mean, over it",
            "ANSI C84.1-2020, annex on unbalance: 3 %, by the definition of NEMA MG 1, 14.36",
        ),
        Limit(
            "reverse_power", "reverse_kw", 0.0, "kW", "no power from the feeder into its source",
            "criterion of EPRI 1026640 (2012), Stochastic Analysis to Determine Feeder Hosting Capacity for "
            "Distributed Solar PV; no harm by itself where protection and regulators are made for it",
        ),
        Limit(
            "voltage_step", "step_pu", 0.03, "pu", "change of a node's voltage when all that was added trips, "
            "regulators and banks standing still",
            "IEEE Std 1547-2018, 7.2.2, rapid voltage changes at medium voltage: 3 % of nominal",
        ),
    )
}  # fmt: skip
#: Those that are looked at unless others are picked.
USUAL = ("ansi_a", "thermal", "unbalance", "voltage_step", "reverse_power")
#: Those of them that make up the capacity unless others are picked: reverse power alone breaks nothing.
BINDING = ("ansi_a", "thermal", "unbalance", "voltage_step")


def pick_limits(written: Sequence[str]) -> list[Limit]:
    """Return the limits that a user picks, as names or ``name=value`` for another value than the usual.

    Raises:
        ScenarioError: a name or a value is none; all of them.
    """
    found, problems = list[Limit](), list[str]()
    for each in written:
        name, equals, value = each.partition("=")
        if name not in LIMITS:
            problems.append(describe_unknown("limit", name, LIMITS))
            continue
        limit = LIMITS[name]
        if equals:
            try:
                high = float(value)
            except ValueError:
                high = np.nan
            if not (np.isfinite(high) and high >= 0.0) or np.isfinite(limit.low):
                two = "it has two values; pick ansi_a or ansi_b" if np.isfinite(limit.low) else ""
                problems.append(f"{each!r}: {two or f'allowed is a number, 0 or more [{limit.unit}]'}")
                continue
            limit = replace(limit, high=high)
        if any(limit.name == other.name for other in found):
            problems.append(f"limit {name!r} is picked twice")
        found.append(limit)
    if problems:
        raise ScenarioError("limits", problems)
    return found


@dataclass(frozen=True)
class Breach:
    """How one size stands to one limit.

    Attributes:
        value: What is worst, of what is new where something is, else of all; NaN where nothing is looked at.
        where: Node, branch or bus of it.
        when: Time of it, as ``2018-06-21 12:45``.
        new: How many steps times elements are beyond the limit, and farther than that element ever is on that side
            without additions: regulators move at other times, which breaks nothing.
    """

    value: float
    where: str
    when: str
    new: int

    @property
    def broken(self) -> bool:
        """Whether anything new is beyond the limit."""
        return self.new > 0


def find_breach(limit: Limit, played: Played, base: Played) -> Breach:
    """Return how a played size stands to a limit, beside the base case on the same days."""
    values, names = played.values(limit.quantity)
    if not values.size:
        return Breach(np.nan, "", "", 0)
    beyond = _beyond(limit, values)
    before = base.values(limit.quantity)[0]
    # Nothing trips where nothing was added.
    before = before if before.size else np.zeros((1, values.shape[1]))
    lowest = np.fmin.reduce(before, axis=0, initial=limit.low)
    highest = np.fmax.reduce(before, axis=0, initial=limit.high)
    new = (values < lowest - _NOISE) | (values > highest + _NOISE)  # comparisons with NaN are false
    worst = int(np.where(new, beyond, -np.inf).argmax() if new.any() else beyond.argmax())
    step, element = np.unravel_index(worst, values.shape)
    return Breach(float(values[step, element]), names[element], played.times[step], int(np.count_nonzero(new)))


def find_broken_already(limit: Limit, base: Played) -> Breach:
    """Return what is beyond a limit without additions; ``new`` counts it."""
    values, names = base.values(limit.quantity)
    if not values.size:
        return Breach(np.nan, "", "", 0)
    beyond = _beyond(limit, values)
    step, element = np.unravel_index(int(beyond.argmax()), values.shape)
    count = int(np.count_nonzero(beyond > _NOISE))
    return Breach(float(values[step, element]), names[element], base.times[step], count)


def _beyond(limit: Limit, values: FloatArray) -> FloatArray:
    """Return how far values are beyond a limit, negative within; -inf of what does not count, NaN."""
    beyond: FloatArray = np.nan_to_num(np.maximum(values - limit.high, limit.low - values), nan=-np.inf)
    return beyond
