"""A day played by a policy, kept step by step as arrays, and which day that is; nothing is drawn or written.

Everything that a table, a page or a report says of a played day is made of a :class:`DayRecording`.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import ScenarioError, find_number_problems
from powergrid.evaluation.drawing.state import GridState, PlacedDevice
from powergrid.evaluation.players import Policy
from powergrid.evaluation.rollout import Progress, evaluate, sum_up
from powergrid.grid.feeder.network import Network
from powergrid.grid.profiles.profiles import Profiles, split_days
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[Any]]

#: What days can be the worst by, and the column of an evaluation that says it.
WORST_BY = {
    "violations": "violation_node_hours",
    "losses": "losses_kwh",
    "peak": "import_peak_kw",
    "cost": "cost_usd",
    "moves": "operations",
}


@dataclass(frozen=True)
class RecordedTable:
    """What was recorded of one kind of thing.

    Attributes:
        owner: The kind: node, bus, branch, switchgear, device, agent, network, action or channel.
        names: Name of each thing.
        values: By quantity, a number for each step and thing, NaN where a thing has none, shape (n_steps, n_names).
        units: Unit of each quantity, empty where it has none or where things differ in it.
    """

    owner: str
    names: tuple[str, ...]
    values: Mapping[str, FloatArray]
    units: Mapping[str, str]

    def __getitem__(self, quantity: str) -> FloatArray:
        """Return a quantity over steps and things, shape (n_steps, n_names)."""
        return self.values[quantity]

    def of(self, name: str, quantity: str) -> FloatArray:
        """Return a quantity of one thing over the steps, shape (n_steps,)."""
        values: FloatArray = self.values[quantity][:, self.names.index(name)]
        return values


@dataclass(frozen=True)
class DayRecording:
    """A day of a scenario as one policy played it.

    A step's numbers are of its own solve, and what an agent saw is what it saw before that step.

    Attributes:
        policy, kind: Who played, and whether a ``baseline`` or a ``policy``.
        scenario, feeder: Names of both.
        day, date: Day of the profiles, from their first, and its date.
        split: The split that the day is of; ``all`` where the profiles are too short to be split.
        step_minutes, times: Length of a step [min], and when each starts, shape (n_steps,).
        finished: Whether the day was played to its end without divergence.
        band: Limits of the voltage [pu].
        nodes, buses, branches, switchgear, devices, agents, network, actions, channels: What was recorded; ``buses``
            are those with three phases.
        feeder_network: The feeder as data.
        placed: Where each device stands.
        zones: Buses of each agent's zone, by index.
        specs: What the scenario and the feeder say of each device.
        notes: What has to be known to read it, a sentence each.
        drawn: What the episode has drawn, by name as in infos.
    """

    policy: str
    kind: str
    scenario: str
    feeder: str
    day: int
    date: str
    split: str
    step_minutes: float
    times: npt.NDArray[np.datetime64]
    finished: bool
    band: tuple[float, float]
    nodes: RecordedTable
    buses: RecordedTable
    branches: RecordedTable
    switchgear: RecordedTable
    devices: RecordedTable
    agents: RecordedTable
    network: RecordedTable
    actions: RecordedTable
    channels: RecordedTable
    feeder_network: Network = field(repr=False)
    placed: Mapping[str, PlacedDevice] = field(repr=False)
    zones: Mapping[str, Sequence[int]] = field(repr=False)
    specs: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()
    drawn: Mapping[str, float] = field(default_factory=dict)

    @property
    def n_steps(self) -> int:
        """Steps that were played."""
        return len(self.times)

    @property
    def tables(self) -> tuple[RecordedTable, ...]:
        """All that was recorded."""
        return (
            self.nodes, self.buses, self.branches, self.switchgear, self.devices, self.agents, self.network,
            self.actions, self.channels,
        )  # fmt: skip

    def outside_pu(self) -> FloatArray:
        """Return how far each node is outside the band, negative inside [pu], shape (n_steps, n_nodes).

        Of nodes that nothing feeds and of neutrals it is no more than the band is wide below 0.
        """
        low, high = self.band
        v_pu = self.nodes["v_pu"]
        outside = np.maximum(v_pu - high, low - v_pu)
        outside[(self.nodes["energised"] == 0.0) | self.feeder_network.is_neutral] = -low
        return outside

    def totals(self) -> dict[str, Any]:
        """Return what the day came to: the row that :func:`powergrid.evaluation.evaluate` has for it."""
        outside, network, devices = self.outside_pu(), self.network, self.devices
        worst = int(outside.max(axis=1).argmax())
        infos = {name: self.agents[name] for name in self.agents.values if name != "reward"}
        infos |= {name: self.network[name] for name in self.network.values}
        batteries = np.flatnonzero([spec.kind == "storage" for spec in self.specs.values()])
        return sum_up(
            day=self.day,
            start=np.datetime64(self.date, "m") - np.timedelta64(self.day, "D"),
            dt_h=self.step_minutes / 60.0,
            steps=self.n_steps,
            finished=self.finished,
            agents=self.agents.names,
            rewards=self.agents["reward"].sum(axis=0),
            sums={name: values.sum(axis=0) for name, values in infos.items()},
            most={
                "v_max_pu": float(network["network_v_max_pu"].max()),
                "-v_min_pu": float(-network["network_v_min_pu"].min()),
                "import_peak_kw": float(network["source_p_kw"].max()),
                "unbalance_max_pu": float(network["network_unbalance_pu"].max()),
                "loading_max_pu": float(self.branches["loading_pu"].max()),
            },
            outside_pu=float(outside.max()),
            worst_node=self.nodes.names[int(outside[worst].argmax())],
            n_nodes=len(self.nodes.names),
            cycles=float(devices["cycles"][-1, batteries].mean()) if len(batteries) else 0.0,
            drawn=self.drawn,
            handed_back={
                name: float(devices.of(name, "handed_back").sum())
                for name, spec in self.specs.items()
                if "handed_back" in devices.values and spec.control == "agent"
            },
        )

    def look(self, step: int) -> GridState:
        """Return the state that a step was solved to, to be drawn."""
        time = str(self.times[step]).replace("T", " ")
        return GridState(
            network=self.feeder_network,
            v_pu=self.nodes["v_pu"][step],
            closed=self.branches["closed"][step] > 0.0,
            title=f"{self.scenario}, {time} ({self.policy})",
            zones=self.zones,
            devices=self.placed,
            band=self.band,
        )


def pick_day(profiles: Profiles, day: int | str | datetime.date) -> int:
    """Return a day of the profiles, given by its number or its date.

    Raises:
        ScenarioError: it is no date, or not in the profiles.
    """
    first = profiles.start.astype("datetime64[D]")
    last = first + profiles.n_days - 1
    if isinstance(day, int | np.integer) and not isinstance(day, bool):
        return int(day)  # whether it is there, the reset says
    try:
        date = np.datetime64(datetime.date.fromisoformat(str(day)), "D")
    except ValueError:
        raise ScenarioError("date", [f"{str(day)!r} is no date; write it as {first}"]) from None
    if not first <= date <= last:
        raise ScenarioError("date", [f"{date} is not in the profiles {profiles.name!r}; they have {first} to {last}"])
    return int((date - first).astype(np.int64))


def find_worst_days(
    env_config: Mapping[str, Any] | Scenario,
    policy: str | tuple[str, Policy],
    count: int,
    by: str = "violations",
    *,
    split: str = "test",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[int]:
    """Play all days of a split and return the worst of them, the worst first.

    Args:
        env_config: As for :func:`record_day`.
        policy: Who plays them.
        count: How many days; all of the split where it has fewer.
        by: ``violations``, ``losses``, ``peak``, ``cost`` or ``moves``.
        split: Which days: train, validation, test or all.
        seed, progress: As for :func:`powergrid.evaluation.evaluate`.

    Raises:
        ScenarioError: the settings, the policy's name, the split or ``by`` are wrong.
    """
    if by not in WORST_BY:
        raise ScenarioError("worst days", [f"by {by!r}; allowed: {', '.join(WORST_BY)}"])
    if problems := find_number_problems(1, count=count):
        raise ScenarioError("worst days", problems)
    frame = evaluate(env_config, [policy], split=split, days=_ALL_DAYS, seed=seed, progress=progress).frame
    ordered = frame.sort_values([WORST_BY[by], "day"], ascending=[False, True], kind="stable")
    return [int(day) for day in ordered["day"].head(count)]


_ALL_DAYS = 1_000_000


def find_split(profiles: Profiles, day: int) -> str:
    """Return the split that a day is of, ``all`` where the profiles are too short to be split."""
    for split in ("train", "validation", "test"):
        try:
            if day in split_days(profiles, None, split):
                return split
        except ScenarioError:
            break
    return "all"
