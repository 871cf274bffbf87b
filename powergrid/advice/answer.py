"""What advice says: setpoints, what they were cut by, and what every input was; as data, rows and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from powergrid.errors import Problem

#: Who decided: the policy, or what stands in for it.
By = Literal["policy", "hold", "native", "none"]
#: Where an input's number is from.
Origin = Literal["reading", "partly", "last", "model", "profile", "nominal"]


@dataclass(frozen=True)
class Cut:
    """Why a setpoint is not what was asked.

    Attributes:
        code: The limit: ``soc``, ``kva``, ``rating``, ``ramp``, ``sun``, ``capability``, ``debt``, ``dwell``,
            ``moves_per_day``, ``moves_per_step`` or ``minimum``.
        text: The limit in numbers.
    """

    code: str
    text: str


@dataclass(frozen=True)
class Setpoint:
    """What one quantity of a device is to be.

    Attributes:
        device, kind, agent, quantity, unit: What it is of; positive power goes into the grid.
        now: What it is, as read or reckoned; None where nobody knows.
        asked: What was asked for, None where nobody asked.
        set: What is to be set, within every limit; None where the device is left alone.
        pu: The turns ratio of a tap [pu].
        by: Who decided: ``policy``, or a fallback: ``hold``, ``native`` (its own control) or ``none``.
        cuts: Why ``set`` is not ``asked``.
    """

    device: str
    kind: str
    agent: str
    quantity: str
    unit: str
    now: float | None
    asked: float | None
    set: float | None
    by: By
    pu: float | None = None
    cuts: tuple[Cut, ...] = ()


@dataclass(frozen=True)
class Input:
    """One number that a policy saw.

    Attributes:
        name, unit: Which.
        value: What it was taken for.
        origin: ``reading``; ``partly`` where some of what it is made of was read; ``last`` reading; ``model`` where the
            power flow or the devices' own arithmetic reckoned it; ``profile`` of the day that stands for the date;
            ``nominal``.
        measured_share: Part of what it is made of that was read, 0..1.
        seen_as: What the policy was told, where the value is outside the range that was trained, else None.
    """

    name: str
    unit: str
    value: float
    origin: Origin
    measured_share: float
    seen_as: float | None = None


@dataclass(frozen=True)
class Advice:
    """What to do in the step that begins now.

    Attributes:
        time: When the readings are of.
        valid_minutes: Length of the step that the setpoints are for [min].
        setpoints: One for each quantity that an agent decides.
        inputs: What the policy saw.
        coverage: Part of what each agent sees that was measured, 0..1.
        fallbacks: What stands in for the policy, by agent or device, and why.
        problems: What was wrong with readings, each with a stable code.
        profile_date: The date of the profiles that stood in for what was not read.
    """

    time: np.datetime64
    valid_minutes: float
    setpoints: tuple[Setpoint, ...]
    inputs: tuple[Input, ...]
    coverage: Mapping[str, float]
    fallbacks: Mapping[str, str]
    problems: tuple[Problem, ...]
    profile_date: str

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each setpoint, as tables have it."""
        return [
            {
                "time": str(self.time), "device": s.device, "quantity": s.quantity, "unit": s.unit, "now": s.now,
                "asked": s.asked, "set": s.set, "pu": s.pu, "by": s.by, "agent": s.agent,
                "why": "; ".join(f"{cut.code}: {cut.text}" for cut in s.cuts),
            }
            for s in self.setpoints
        ]  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "time": str(self.time),
            "valid_minutes": self.valid_minutes,
            "setpoints": [asdict(each) for each in self.setpoints],
            "coverage": dict(self.coverage),
            "fallbacks": dict(self.fallbacks),
            "problems": [asdict(each) for each in self.problems],
            "inputs": [asdict(each) for each in self.inputs],
            "profile_date": self.profile_date,
        }

    def doubts(self) -> list[str]:
        """Return what has to be known of it, a sentence each."""
        replaced: dict[str, list[str]] = {}
        for each in self.inputs:
            if each.origin not in ("reading", "partly"):
                replaced.setdefault(each.origin, []).append(each.name)
        told = [f"{place}: {why}" for place, why in self.fallbacks.items()]
        told += [f"not read, {_STAND_IN[origin]}: {_name_some(names)}" for origin, names in replaced.items()]
        beyond = [each.name for each in self.inputs if each.seen_as is not None]
        told += [f"outside the range that was trained, seen as its end: {_name_some(beyond)}"] if beyond else []
        return told + [str(problem) for problem in self.problems]


_STAND_IN = {
    "last": "their last reading stands in",
    "model": "the model reckons them",
    "profile": "the profiles stand in",
    "nominal": "their nominal value stands in",
}


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
