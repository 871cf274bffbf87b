"""Hosting capacity of a feeder: every control at every placement, in worker processes, kept and gone on with."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, describe_unknown, find_number_problems
from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.hosting.additions import PLACEMENTS, Kind, Placement, load_buses, place, shape_of
from powergrid.evaluation.hosting.limits import BINDING, USUAL, pick_limits
from powergrid.evaluation.hosting.report import Hosting
from powergrid.evaluation.hosting.sweep import Control, Part, Plan, keep_part
from powergrid.evaluation.jobs import run_jobs
from powergrid.evaluation.players import Policy, find_players
from powergrid.evaluation.rollout import Progress, read_scenario
from powergrid.evaluation.studies.report import describe_facts
from powergrid.evaluation.studies.year import claim, digest_of
from powergrid.files import make_folder, read_json, sole_use
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.devices.spec import MOST_SEED
from powergrid.grid.feeder.network import Network
from powergrid.grid.profiles.profiles import split_days
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]

#: What a study is, beside the parts that it has come to.
MANIFEST = "hosting.json"
_PARTS = "parts"
_SAME = ("scenario_digest", "feeder_digest", "profiles_digest", "seed", "kind", "sizes_kw", "limits", "capacity_by",
         "dates")  # fmt: skip
#: The control that is the feeder's own beside volt-var of what is added.
VOLT_VAR = "volt_var"
CONTROLS = ("no_control", "native", VOLT_VAR, "rule_based")
#: One bus holds less than all of them: a step has so many parts there.
_BUS_STEPS = 10
#: Load buses of one part of a map.
_BUSES_A_PART = 12
#: How much is added at most, in the feeder's nominal demand, and in how many steps at least, unless told otherwise.
_MOST_LOADS, _LEAST_STEPS, _MOST_STEPS = 2.0, 20, 1000


@dataclass(frozen=True)
class HostingOptions:
    """What is to be found out.

    Attributes:
        kind: What is added; see :data:`~powergrid.evaluation.hosting.additions.MEANINGS`.
        placements: ``uniform``, ``end``, ``random``, or buses with commas between them.
        seeds: Draws of ``random``.
        share: Part of the load buses that each of them has.
        step_kw, most_kw: Step and largest size; a twentieth of that, rounded, and twice the nominal demand if unset.
        limits: Names of the limits that are looked at, or ``name=value``; :data:`USUAL` if none is given.
        capacity_by: Names of those of them that make up the capacity: all that are given, :data:`BINDING` if none is.
        dates: Dates, or days from the first of the profiles.
        days: How many days where no date is given: the one with most sun over demand, the one of peak demand, then
            others spread over the profiles.
        map_buses: Each load bus is looked at alone where there are up to so many.
    """

    kind: Kind = "pv"
    placements: Sequence[str] = PLACEMENTS
    seeds: int = 3
    share: float = 0.3
    step_kw: float | None = None
    most_kw: float | None = None
    limits: Sequence[str] = ()
    capacity_by: Sequence[str] = ()
    dates: Sequence[str | datetime.date | int] = ()
    days: int = 2
    map_buses: int = 150


def study_hosting(
    env_config: Mapping[str, Any] | Scenario,
    controls: Sequence[str | tuple[str, Policy]] = CONTROLS,
    folder: str | Path = "hosting",
    options: HostingOptions = HostingOptions(),  # frozen
    *,
    seed: int = 0,
    workers: int = 1,
    command: str = "",
    progress: Progress | None = None,
) -> Hosting:
    """Add more and more to a feeder until limits break that did not without, and report on how much it holds.

    What is in the folder already is not played again.

    Args:
        env_config: As for ``NetworkedGridEnv``: ``env_name`` or ``scenario``, and any scenario field by its key; or a
            scenario.
        controls: Names of baselines; ``volt_var``, which is ``native`` with volt-var of IEEE 1547-2018 Category B on
            what is added; or a name with an object that has ``act``.
        folder: Where parts, page and tables go; it is made.
        options: What is added where, until which limits break, on which days.
        seed: Seed of whatever is random in a day.
        workers: Processes that play.
        command: The command that made it, for the report to tell.
        progress: Called with the number of parts done and to do.

    Raises:
        ScenarioError: something of this is wrong, or the folder holds another study.
        FeederError: the feeder does not compile or solve.
    """
    asked, players = options, find_controls(controls)
    scenario = read_scenario(env_config, "all")
    _check(scenario, asked, seed, workers)
    scenario = load_scenario(
        scenario, {"episode_length": 24 * 60 // scenario.step_minutes, "divergence": {"policy": "hold"}}
    )
    network = network_of(scenario.read_feeder())
    placements = place(network, asked.placements, range(asked.seeds), asked.share)
    plan, dates = _make_plan(scenario, network, asked, seed)
    buses = load_buses(network)
    facts = describe_facts(scenario, seed, command) | {
        "kind": asked.kind,
        "sizes_kw": f"{plan.sizes[0]:g} to {plan.sizes[-1]:g} in steps of {plan.sizes[0]:g}",
        "limits": ", ".join(f"{limit.name} {limit.say()}" for limit in plan.limits),
        "capacity_by": ", ".join(plan.binding),
        "dates": ", ".join(dates),
    }
    root = Path(folder)
    make_folder(root / _PARTS)
    with sole_use(root):
        claim(root / MANIFEST, facts, {control.name: digest_of(control.player[1]) for control in players}, _SAME)
        parts = list(_divide(plan, players, placements, buses if len(buses) <= asked.map_buses else [], root / _PARTS))
        left = [job for job in parts if not job[-1].is_file()]
        for done, _ in enumerate(run_jobs(keep_part, left, workers), len(parts) - len(left) + 1):
            if progress is not None:
                progress(done, len(parts))
        kept = [read_json(file, Part) for *_, file in parts]
        hosting = Hosting(plan.limits, plan.binding, plan.sizes, network, kept, facts)
        hosting.write(root)
        return hosting


def find_controls(given: Sequence[str | tuple[str, Policy]]) -> list[Control]:
    """Return who plays, by name.

    Raises:
        ScenarioError: a name is none, or given twice.
    """
    others = [each for each in given if each != VOLT_VAR]
    wrong = [
        describe_unknown("control", each, BASELINES)
        for each in others
        if isinstance(each, str) and each not in BASELINES
    ]
    if wrong or list(given).count(VOLT_VAR) > 1:
        raise ScenarioError("controls", wrong or [f"{VOLT_VAR!r} is given twice"])
    players = {player[0]: player for player in (find_players(others) if others else [])}
    names = [each if isinstance(each, str) else each[0] for each in given]
    return [
        Control(name, ("native", None), volt_var=True) if name == VOLT_VAR else Control(name, players[name])
        for name in names
    ]


def _check(scenario: Scenario, asked: HostingOptions, seed: int, workers: int) -> None:
    problems = find_number_problems(0, MOST_SEED, seed=seed)
    problems += find_number_problems(0, map_buses=asked.map_buses)
    problems += find_number_problems(1, workers=workers, days=asked.days, seeds=asked.seeds)
    if asked.kind not in get_args(Kind):
        problems.append(describe_unknown("kind", asked.kind, get_args(Kind)))
    if not 0.0 < asked.share <= 1.0:
        problems.append(f"share {asked.share!r} is not a part of the load buses, above 0 and at most 1")
    for key, value in (("step_kw", asked.step_kw), ("most_kw", asked.most_kw)):
        if value is not None and not 0.0 < value <= 1e9:
            problems.append(f"{key} {value!r} is not a size above 0 [kW]")
    if 24 * 60 % scenario.step_minutes:
        problems.append(f"step_minutes {scenario.step_minutes} do not make up a day")
    if scenario.feeders:
        problems.append("the scenario has several feeders; set feeder")
    if problems:
        raise ScenarioError("hosting", problems)


def _make_plan(scenario: Scenario, network: Network, asked: HostingOptions, seed: int) -> tuple[Plan, list[str]]:
    limits = pick_limits(asked.limits or USUAL)
    names = [limit.name for limit in limits]
    binding = list(asked.capacity_by) or [name for name in names if name in BINDING or asked.limits]
    wrong = [describe_unknown("limit of those picked", name, names) for name in binding if name not in names]
    if wrong:
        raise ScenarioError("capacity_by", wrong)
    nominal_kw = float(network.loads.kw.sum()) * scenario.load_scale
    most = asked.most_kw or _MOST_LOADS * nominal_kw
    step = asked.step_kw or min(_round_down(most / _LEAST_STEPS), most)
    count = int(np.floor(most / step + 1e-9))
    if not 1 <= count <= _MOST_STEPS:
        sizes_are = f"from {step:g} to {most:g} kW in steps of {step:g} are {count} sizes"
        raise ScenarioError("hosting", [f"{sizes_are}; allowed are 1..{_MOST_STEPS}"])
    days, demand, net = _find_days(scenario, asked)
    sizes = tuple(step * (i + 1) for i in range(count))
    bus_sizes = tuple(step / _BUS_STEPS * (i + 1) for i in range(count * _BUS_STEPS))
    start = scenario.read_profiles().start.astype("datetime64[D]")
    dates = [str(start + day) for day in days]
    shape = shape_of(asked.kind, demand, net)
    return Plan(scenario, asked.kind, shape, sizes, bus_sizes, tuple(limits), tuple(binding), tuple(days), seed), dates


def _round_down(value: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that is not above a value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(each for each in (1.0, 2.0, 5.0) if each * power <= value * (1.0 + 1e-9)))


def _find_days(scenario: Scenario, asked: HostingOptions) -> tuple[list[int], FloatArray, FloatArray]:
    """Return the days to look at, the mean demand over them, and the same less the sun on panels of its peak [kW]."""
    profiles = scenario.read_profiles()
    eligible = split_days(profiles, split="all").tolist()
    simulation = scenario.simulate()
    try:
        chosen = _read_days(asked.dates, profiles.start, eligible)
        looked = chosen or eligible
        demand, sun = dict[int, FloatArray](), dict[int, FloatArray]()
        for day in looked:
            simulation.reset(0, np.random.default_rng([0, day]), day)
            demand[day] = simulation.day_load_kw[0, :-1].sum(axis=1)
            # Without a series of the sun panels shine all day.
            sun[day] = simulation.day_pv_pu[0, :-1].copy() if profiles.pv_pu is not None else np.ones(len(demand[day]))
    finally:
        simulation.close()
    peak = max(float(kw.max()) for kw in demand.values())
    over = {day: float((sun[day] * peak - demand[day]).max()) for day in looked}
    if not chosen:
        spread = [eligible[round((i + 0.5) * len(eligible) / asked.days - 0.5)] for i in range(asked.days)]
        extremes = [max(over, key=over.__getitem__), max(demand, key=lambda day: float(demand[day].max()))]
        chosen = list(dict.fromkeys([*extremes, *spread]))[: asked.days]
    mean = np.mean([demand[day] for day in chosen], axis=0)
    return chosen, mean, mean - peak * np.mean([sun[day] for day in chosen], axis=0)


def _read_days(
    written: Sequence[str | datetime.date | int], start: np.datetime64, eligible: Sequence[int]
) -> list[int]:
    """Return days of the profiles, given by date or by number."""
    first, found, problems = start.astype("datetime64[D]"), list[int](), list[str]()
    for each in written:
        try:
            day = each if isinstance(each, int) else int(
                (np.datetime64(datetime.date.fromisoformat(str(each)), "D") - first).astype(int)
            )  # fmt: skip
        except ValueError:
            problems.append(f"{str(each)!r} is no date; write it as {first}")
            continue
        if day not in eligible:
            span = f"{first + eligible[0]} to {first + eligible[-1]}"
            problems.append(f"{each} is no day of the profiles; they have {span}")
        found.append(day)
    if problems:
        raise ScenarioError("dates", problems)
    return list(dict.fromkeys(found))


def _divide(
    plan: Plan, controls: Sequence[Control], placements: Sequence[Placement], buses: Sequence[str], folder: Path
) -> Any:
    """Yield the arguments of each part's :func:`keep_part`: a placement each, or some buses of the map."""
    for control in controls:
        label = control.name.strip("/").replace("/", "_")
        for placement in placements:
            name = f"{label}_{placement.label}".replace(" ", "_").replace(",", "+")
            file = folder / f"{name[:80]}_{_digest(placement)}.json"
            yield plan, control, [placement], False, file
        for first in range(0, len(buses), _BUSES_A_PART):
            alone = [Placement("each", {bus: 1.0}) for bus in buses[first : first + _BUSES_A_PART]]
            yield plan, control, alone, True, folder / f"{label}_each_{first}.json"


def _digest(placement: Placement) -> str:
    return hashlib.sha256(repr(asdict(placement)).encode()).hexdigest()[:8]
