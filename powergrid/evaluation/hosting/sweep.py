"""Add more and more at a placement, under one control, until limits break; what that came to, as it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from powergrid.errors import ConvergenceError, FeederError, ScenarioError
from powergrid.evaluation.hosting.additions import Kind, Placement, build, list_elements
from powergrid.evaluation.hosting.limits import Limit, find_breach, find_broken_already
from powergrid.evaluation.hosting.play import Played, play
from powergrid.evaluation.players import Player
from powergrid.files import write_whole
from powergrid.scenario import Scenario, load_scenario

#: What breaks where no power flow is found.
UNSOLVED = "power_flow"


@dataclass(frozen=True)
class Plan:
    """What all sweeps of a study have in common.

    Attributes:
        scenario: The scenario, of days of whichever split.
        kind: What is added.
        shape: What it does over a day, empty where it follows the sun.
        sizes: What is added in all, the least first [kW].
        bus_sizes: The same at a bus that is looked at alone.
        limits: The limits that are looked at.
        binding: Names of those that make up the capacity.
        days: Days of the profiles.
        seed: Seed of what is random in a day.
    """

    scenario: Scenario
    kind: Kind
    shape: tuple[float, ...]
    sizes: tuple[float, ...]
    bus_sizes: tuple[float, ...]
    limits: tuple[Limit, ...]
    binding: tuple[str, ...]
    days: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Control:
    """Who plays, and whether what is added has volt-var control."""

    name: str
    player: Player
    volt_var: bool = False


class KeptBreach(BaseModel):
    """How a size stands to a limit; see :class:`~powergrid.evaluation.hosting.limits.Breach`."""

    value: float | None
    where: str
    when: str
    new: int


class Point(BaseModel):
    """One size: how it stands to each limit, or why it could not be played."""

    kw: float
    breaches: dict[str, KeptBreach]
    problem: str = ""

    def breaks(self, limits: Sequence[str]) -> list[str]:
        """Return which of some limits it breaks."""
        return [UNSOLVED] if self.problem else [name for name in limits if self.breaches[name].new > 0]


class Sweep(BaseModel):
    """What one control and placement came to, size by size, the least first."""

    control: str
    placement: str
    seed: int | None
    shares: dict[str, float]
    points: list[Point]
    is_whole: bool = True

    def capacity(self, limits: Sequence[str]) -> tuple[float, Point | None]:
        """Return the largest size below the first that breaks one of some limits [kW], and that one, if any does."""
        kw = 0.0
        for point in self.points:
            if point.breaks(limits):
                return kw, point
            kw = point.kw
        return kw, None


class Part(BaseModel):
    """What is kept of one control on some placements: the base case beside limits, and the sweeps."""

    control: str
    base: dict[str, KeptBreach]
    sweeps: list[Sweep]


def keep_part(plan: Plan, control: Control, placements: Sequence[Placement], halving: bool, file: Path) -> None:
    """Sweep some placements under one control and keep what that came to."""
    base = play(plan.scenario, control.player, plan.days, plan.seed)
    # Nobody but who moves them moves taps and banks because something is added.
    scenario = load_scenario(plan.scenario, dict(base.positions))
    search = sweep_halving if halving else sweep_up
    sweeps = [
        Sweep(
            control=control.name, placement=placement.name, seed=placement.seed, shares=dict(placement.shares),
            points=search(plan, scenario, control, placement, base), is_whole=not halving,
        )
        for placement in placements
    ]  # fmt: skip
    broken = {limit.name: _kept(find_broken_already(limit, base)) for limit in plan.limits}
    part = Part(control=control.name, base=broken, sweeps=sweeps)
    write_whole(file, part.model_dump_json(indent=1) + "\n")


def sweep_up(plan: Plan, scenario: Scenario, control: Control, placement: Placement, base: Played) -> list[Point]:
    """Play size after size until every limit is broken or there is no more."""
    points, left = list[Point](), {limit.name for limit in plan.limits}
    for kw in plan.sizes:
        points.append(_play_size(plan, scenario, control, placement, kw, base))
        left -= set(points[-1].breaks([limit.name for limit in plan.limits]))
        if not left or points[-1].problem:
            break
    return points


def sweep_halving(plan: Plan, scenario: Scenario, control: Control, placement: Placement, base: Played) -> list[Point]:
    """Play the sizes that halve what is left, as if more never broke less; those that were played, the least first."""
    played, fine, breaking = dict[int, Point](), -1, len(plan.bus_sizes)
    while breaking - fine > 1:
        middle = (fine + breaking) // 2
        played[middle] = _play_size(plan, scenario, control, placement, plan.bus_sizes[middle], base)
        fine, breaking = (fine, middle) if played[middle].breaks(plan.binding) else (middle, breaking)
    return [played[place] for place in sorted(played)]


def _play_size(
    plan: Plan, scenario: Scenario, control: Control, placement: Placement, kw: float, base: Played
) -> Point:
    added = build(plan.kind, kw, placement, plan.shape, volt_var=control.volt_var)
    stepped = any(limit.quantity == "step_pu" for limit in plan.limits)
    trips = list_elements(plan.kind, placement) if stepped else []
    try:
        larger = load_scenario(scenario, {"feeder_changes": {"add": added}})
        played = play(larger, control.player, plan.days, plan.seed, trips)
    except (FeederError, ScenarioError, ConvergenceError) as error:  # the base case was played: it is the size
        return Point(kw=kw, breaches={}, problem=str(error))
    if not played.solved:
        return Point(kw=kw, breaches={}, problem="the power flow does not converge at some step")
    return Point(kw=kw, breaches={limit.name: _kept(find_breach(limit, played, base)) for limit in plan.limits})


def _kept(breach: Any) -> KeptBreach:
    told = asdict(breach)
    return KeptBreach(**{**told, "value": None if told["value"] != told["value"] else told["value"]})
