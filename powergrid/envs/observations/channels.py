"""The table of everything observable: name, unit, bounds, owner; and the matrix that holds it.

One row of the table is one number per environment. What an agent sees is an index set over the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powergrid.envs.observations.graph import GraphView
from powergrid.envs.observations.outages import OutageView
from powergrid.grid.devices.spec import Rows
from powergrid.grid.metrics import Metrics
from powergrid.grid.outages.spec import widen_price
from powergrid.grid.profiles.outlook import Forecasts
from powergrid.grid.simulation import Simulation
from powergrid.grid.sums import GroupSums
from powergrid.grid.telemetry import Telemetry, TelemetrySpec
from powergrid.rules import name_proposed

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_V_LOW, _V_HIGH = 0.85, 1.15
#: Quantiles of the node voltages that stand for all of them in a summary [%].
_PERCENTS = (5, 25, 50, 75, 95)
#: What is measured of metered nodes, in the order of ``Telemetry.metered``.
_METERED = ("metered_min_pu", "metered_max_pu", "metered_mean_pu")


class Channel(NamedTuple):
    """One observable number.

    Attributes:
        name: ``owner.quantity`` with the unit as a suffix.
        unit: Unit of the physical value.
        low: Lowest value that is told apart; anything lower reads as this.
        high: Highest value that is told apart.
        owner: ``world``, ``network``, an agent's name (its zone), or a device's name.
    """

    name: str
    unit: str
    low: float
    high: float
    owner: str


class Channels:
    """Say what every channel is and where among all that is measured it lies.

    Args:
        simulation: The simulation.
        metrics: Its metrics, with one zone for each of ``zones``.
        zones: Name of each zone.
        pccs: Bus index of each zone's point of common coupling.
        pcc_nodes: Nodes of each of these.
        load_shares: Part of each load that is in each zone, each of shape (n_loads,).
        price_ahead_steps: How many steps ahead the price is known.
        zone_nodes: Nodes of each zone.
        summary: Whether the network's voltages are shown as quantiles, the same for every feeder, not node by node.
        peak_kw: The highest import of each episode so far, shown where it is priced, shape (n_envs, 1).
        forecasts: How the hours to come are foreseen; None shows nothing of them.
        telemetry: What becomes of it on its way to those who see it; None where all is seen as it is.
        owned: Kind and agent of each device that an agent owns, by name.
        graph: What is shown of feeders as graphs; None shows none.
        proposed: Columns of the actions of which it is shown what rules propose; empty shows none.

    Attributes:
        table: The channels in the order of the columns.
        places: Where each channel lies in ``Metrics.results``, shape (n_channels,).
        told: Where it lies as it is seen, which telemetry may make something else of, shape (n_channels,).
        shown: Columns of what anybody can see, shape (n_shown,).
        telemetry: What tells it, None where all is seen as it is.
        metrics: What was measured.
        loads_in: Part of each load that is in a zone, shape (n_loads, n_zones).
        sum_loads: Returns the sums in each zone of numbers of the loads, the last axis of some.
        outages: What is shown of events, where the simulation follows who is fed, else None.
    """

    def __init__(
        self,
        simulation: Simulation,
        metrics: Metrics,
        zones: Sequence[str],
        pccs: Sequence[int],
        pcc_nodes: Sequence[IntArray],
        load_shares: Sequence[FloatArray],
        price_ahead_steps: Sequence[int],
        zone_nodes: Sequence[IntArray],
        *,
        summary: bool = False,
        peak_kw: FloatArray | None = None,
        forecasts: Forecasts | None = None,
        telemetry: TelemetrySpec | None = None,
        owned: Mapping[str, tuple[str, str]] | None = None,
        graph: GraphView | None = None,
        proposed: Sequence[int] = (),
    ) -> None:
        self.graph, self._n_proposed = graph, len(proposed)
        self._simulation, self.metrics, self._peak_kw, self._forecasts = simulation, metrics, peak_kw, forecasts
        self._marks = list[int]()  # of telemetry, those that are channels of their own
        self.loads_in = np.column_stack(load_shares)
        of_zones = [(where := np.flatnonzero(own), own[where]) for own in load_shares]
        self.sum_loads = GroupSums(of_zones, len(self.loads_in)).of
        horizon = simulation.options.horizon_steps
        self._ahead = np.minimum(np.arange(horizon + 1)[:, None] + np.array([*price_ahead_steps], dtype=int), horizon)
        network = simulation.network
        ways = [network.feeding_branches(network.buses[bus]) or [0] for bus in pccs]  # [0]: the source's own bus
        self._quantiles = _Quantiles(len(network.nodes)) if summary else None
        self.table: list[Channel] = []
        self._add_world(price_ahead_steps, zones)
        if forecasts is not None:
            self._add_outlook(forecasts, zones)
        self._exogenous = np.zeros((simulation.n_envs, horizon + 1, len(self.table)))
        angle = np.arange(horizon + 1) * simulation.dt_h * (np.pi / 12.0)
        self._exogenous[:, :, 0], self._exogenous[:, :, 1] = np.sin(angle), np.cos(angle)
        self._late = False
        self._n_exogenous = len(self.table)
        self._add_solved(zones)
        self._add_devices()
        self.outages = self._add_outages(zones, zone_nodes)
        if peak_kw is not None:
            total = next(c.high for c in self.table if c.name == "network.source_p_kw")
            self.table.append(Channel("world.peak_import_kw", "kW", 0.0, total, "world"))
        if simulation.handed_back is not None:
            most = float(max(simulation.handed_back.release_steps, 1))
            self.table.append(Channel("world.handed_back_steps", "steps", 0.0, most, "world"))
        actions = [simulation.actions[column] for column in proposed]
        self.table += [Channel(name_proposed(a), a.unit, a.low, max(a.high, a.low + 1e-9), a.device) for a in actions]
        self.telemetry = self._add_telemetry(telemetry, dict(zip(zones, zone_nodes, strict=True)), owned or {})
        self._exogenous_rows = self._exogenous.reshape(-1, self._n_exogenous)
        metered = [] if self.telemetry is None else self.telemetry.metered_nodes
        if summary and metered:
            self._quantiles = _Quantiles(len(network.nodes), metered[-1])
        upstream = [np.array(way, dtype=np.int64) for way in ways]
        beside = self._list_beside()
        metrics.watch(pcc_nodes, upstream, [*beside.values()], metered)
        self.places: IntArray = self._place(beside)
        self.told, self.shown, self._of_telemetry = self._place_told()
        self.measure()

    # -- the table

    def _add_world(self, price_ahead_steps: Sequence[int], zones: Sequence[str]) -> None:
        simulation = self._simulation
        price = simulation.profiles.price_usd_per_kwh[simulation.options.tariff] * simulation.options.price_scale
        low, high = float(price.min()), float(price.max())
        high = high if high > low else low + 1.0
        self._world("time_of_day_sin", "", -1.0, 1.0)
        self._world("time_of_day_cos", "", -1.0, 1.0)
        self._world("weekend", "", 0.0, 1.0)
        self._world("sun_pu", "pu", 0.0, 1.2)
        self._world("price_usd_per_kwh", "USD/kWh", *widen_price(simulation.options.events, low, high))
        for steps in price_ahead_steps:
            hours = steps * simulation.dt_h
            self._world(f"price_ahead_{hours:g}h_usd_per_kwh", "USD/kWh", low, high)
        self._n_world = len(self.table)
        loads = simulation.network.loads
        scale = simulation.options.load_scale
        measured = simulation.calendar.measured_range(self.loads_in)
        for index, own in enumerate(self.loads_in.T):
            low, high = 0.0, 1.2 * max(float((loads.kw * own).sum()) * scale, 1.0)
            if measured is not None:  # whatever the ratings are
                low, high = min(low, float(measured[0][index])), max(high, float(measured[1][index]))
            self.table.append(Channel(f"{zones[index]}.demand_kw", "kW", low, high, zones[index]))

    def _add_outlook(self, forecasts: Forecasts, zones: Sequence[str]) -> None:
        """Add who an agent is, the season, the time that is left, and means over the hours to come."""
        simulation, n_world = self._simulation, self._n_world
        demand, price = self.table[n_world : n_world + len(zones)], self.table[4]
        self._world("season_sin", "", -1.0, 1.0)
        self._world("season_cos", "", -1.0, 1.0)
        self._world("hours_left", "h", 0.0, simulation.options.horizon_steps * simulation.dt_h)
        told = [f"{hours:g}h" for hours in forecasts.hours]
        for span in told:
            self._world(f"price_over_{span}_usd_per_kwh", "USD/kWh", price.low, price.high)
        for span in told:
            self._world(f"sun_over_{span}_pu", "pu", 0.0, 1.2)
        for zone, own in zip(zones, demand, strict=True):
            self.table += [own._replace(name=f"{zone}.demand_over_{span}_kw") for span in told]
        for zone in zones:  # in each one's own place: agents that share a policy are told apart by it
            self.table += [Channel(f"{zone}.is_{other}", "", 0.0, 1.0, zone) for other in zones]

    def _world(self, name: str, unit: str, low: float, high: float) -> None:
        self.table.append(Channel(f"world.{name}", unit, low, high, "world"))

    def _add_solved(self, zones: Sequence[str]) -> None:
        simulation = self._simulation
        loads = simulation.network.loads
        add = self.table.append
        first = len(self.table)
        for quantity in ("v_min_pu", "v_mean_pu", "v_max_pu", "pcc_v_pu"):
            for zone in zones:
                add(Channel(f"{zone}.{quantity}", "pu", _V_LOW, _V_HIGH, zone))
        for quantity, unit in (("import_kw", "kW"), ("import_kvar", "kvar")):
            for zone, own in zip(zones, self.loads_in.T, strict=True):
                reach = 2.0 * max(float(np.hypot((loads.kw * own).sum(), (loads.kvar * own).sum())), 50.0)
                add(Channel(f"{zone}.{quantity}", unit, -reach, reach, zone))
        for quantity in ("loading_pu", "upstream_loading_pu"):
            for zone in zones:
                add(Channel(f"{zone}.{quantity}", "pu", 0.0, 2.0, zone))
        total = 2.0 * max(float(np.hypot(loads.kw.sum(), loads.kvar.sum())), 50.0)
        add(Channel("network.v_min_pu", "pu", _V_LOW, _V_HIGH, "network"))
        add(Channel("network.v_max_pu", "pu", _V_LOW, _V_HIGH, "network"))
        add(Channel("network.source_p_kw", "kW", -total, total, "network"))
        add(Channel("network.source_q_kvar", "kvar", -total, total, "network"))
        add(Channel("network.losses_kw", "kW", 0.0, 0.2 * total, "network"))
        first = len(self.table)
        if self._quantiles is None:
            for node in simulation.network.nodes:
                add(Channel(f"network.{node}.v_pu", "pu", _V_LOW, _V_HIGH, "network"))
        else:
            for percent in _PERCENTS:
                add(Channel(f"network.v_{percent:02d}_percent_pu", "pu", _V_LOW, _V_HIGH, "network"))
            add(Channel("network.v_mean_pu", "pu", _V_LOW, _V_HIGH, "network"))
            add(Channel("network.violation_share", "", 0.0, 1.0, "network"))
        self._n_nodes = len(self.table) - first

    def _add_devices(self) -> None:
        simulation = self._simulation
        n_power = simulation.setpoints.shape[2]
        # where the states lie side by side: powers delivered, active then reactive, then what each fleet holds besides
        self._held: list[tuple[Any, str]] = []
        self._state_places: list[int] = []
        n_before, n_held = 0, 2 * n_power
        for fleet in simulation.fleets:
            begin = {"delivered_p_kw": n_before, "delivered_q_kvar": n_power + n_before}
            for state, (name, device) in zip(fleet.states, fleet.held, strict=True):
                if name not in begin:
                    begin[name] = n_held
                    n_held += fleet.n
                    self._held.append((fleet, name))
                self._state_places.append(begin[name] + device)
                high = state.high if state.high > state.low else state.low + 1.0
                self.table.append(Channel(f"{state.device}.{state.name}", state.unit, state.low, high, state.device))
            n_before += fleet.n

    def _add_outages(self, zones: Sequence[str], zone_nodes: Sequence[IntArray]) -> OutageView | None:
        if self._simulation.events is None:
            return None
        view = OutageView(self._simulation, self._simulation.events, zones, zone_nodes, self.loads_in)
        self.table += [Channel(*row) for row in view.channels]
        return view

    def _add_telemetry(
        self, spec: TelemetrySpec | None, zones: Mapping[str, IntArray], owned: Mapping[str, tuple[str, str]]
    ) -> Telemetry | None:
        simulation, graph, table = self._simulation, self.graph, self.table
        rows = [] if graph is None else [Channel(*row) for row in graph.channels]
        if spec is None or spec.idle:
            self.table = [*table, *rows]
            return None
        columns, options = [action.device for action in simulation.actions], simulation.options
        name = f"feeder {simulation.feeder.name!r}"
        size = simulation.n_envs, options.horizon_steps + 1, options.step_minutes
        moving = [] if graph is None else graph.moving
        measured = [*table, *(row if moves else None for row, moves in zip(rows, moving, strict=True))]
        telemetry = Telemetry(spec, measured, self.metrics, zones, owned, columns, *size, name)
        if graph is not None:  # in its channels are the marks that tell of it
            rows = [Channel(*row) for row in graph.tell(telemetry.marks)]
        owners = [] if graph is None else graph.graphs
        self._marks = [i for i, mark in enumerate(telemetry.marks) if mark.owner not in owners]
        self.table = [*table, *rows, *(Channel(*telemetry.marks[i]) for i in self._marks)]
        return telemetry

    def _list_beside(self) -> dict[str, int | tuple[int, int]]:
        """Return how many numbers each array has that :meth:`measure` puts beside what is measured, in its order."""
        widths: dict[str, int | tuple[int, int] | None] = {
            "known": self._n_exogenous,
            "powers": (2, self._simulation.setpoints.shape[2]),
            **{f"held {i}": fleet.n for i, (fleet, _) in enumerate(self._held)},
            "outages": None if self.outages is None else len(self.outages.channels),
            "peak": None if self._peak_kw is None else 1,
            "handed_back": None if self._simulation.handed_back is None else 1,
            "graph": None if self.graph is None else self.graph.extra,
            "quantiles": None if self._quantiles is None else self._n_nodes,
            "telemetry": None if self.telemetry is None else self.telemetry.width,
            "proposed": self._n_proposed or None,  # without telemetry, which rules would see through
        }
        return {name: width for name, width in widths.items() if width is not None}

    # -- the matrix

    def start_day(self, rows: Rows, zone_kw: FloatArray, rngs: Sequence[np.random.Generator] = ()) -> None:
        """Lay out what is known of the day that some environments start.

        Args:
            rows: The environments.
            zone_kw: Demand in each zone on their days [kW], shape (n_rows, horizon_steps + 1, n_zones).
            rngs: A generator for each, where hours to come are foreseen.
        """
        simulation, out = self._simulation, self._exogenous
        if simulation.first_step.any() or self._late:
            self._late = True  # now or once: what was laid out for another hour has to go
            steps = np.arange(out.shape[1]) + simulation.first_step[rows, None]
            angle = steps * simulation.dt_h * (np.pi / 12.0)
            out[rows, :, 0], out[rows, :, 1] = np.sin(angle), np.cos(angle)
        out[rows, :, 2] = simulation.weekend[rows, None]
        out[rows, :, 3] = simulation.day_pv_pu[rows]
        price = simulation.day_price[rows]
        out[rows, :, 4] = simulation.day_paid_price[rows]
        out[rows, :, 5 : self._n_world] = price.take(self._ahead, axis=1)
        n_zones = zone_kw.shape[2]
        out[rows, :, self._n_world : self._n_world + n_zones] = zone_kw
        if self._forecasts is not None:
            out[rows, :, self._n_world + n_zones :] = self._look_out(self._forecasts, rows, rngs)

    def _look_out(self, forecasts: Forecasts, rows: Rows, rngs: Sequence[np.random.Generator]) -> FloatArray:
        """Return what :meth:`_add_outlook` has columns for, shape (n_rows, horizon_steps + 1, n_columns)."""
        simulation, dt_h = self._simulation, self._simulation.dt_h
        envs = np.arange(simulation.n_envs)[rows].tolist()
        comes, before = (
            np.stack([np.column_stack((sun, self.sum_loads(kw))) for kw, sun in map(how, envs)])
            for how in (simulation.calendar.foreseen, simulation.calendar.day_before)
        )
        foreseen = forecasts.average(forecasts.foresee(rngs, comes, before, dt_h), dt_h)
        yesterday = np.stack([simulation.calendar.price_before(env) for env in envs])
        told = forecasts.foresee_price(rngs, simulation.day_price[rows, :-1], yesterday, dt_h)
        price = forecasts.average(told[:, :, None], dt_h)
        n_steps, n_zones = simulation.options.horizon_steps, comes.shape[2] - 1
        angle = np.broadcast_to(2.0 * np.pi * simulation.calendar.season[rows, None], price.shape[:2])
        left = np.broadcast_to((n_steps - np.arange(n_steps + 1)) * dt_h, angle.shape)
        who = np.broadcast_to(np.eye(n_zones).ravel(), (*angle.shape, n_zones**2))
        means = [foreseen[:, :, column] for column in range(1 + n_zones)]
        return np.concatenate((np.stack((np.sin(angle), np.cos(angle), left), -1), price[:, :, 0], *means, who), axis=2)

    def measure(self) -> None:
        """Measure the solved state, with what is known of the step to come and what devices hold beside it."""
        simulation, metrics = self._simulation, self.metrics
        known = self._exogenous_rows.take(simulation.row, 0)
        beside = [known, simulation.powers.delivered]
        for fleet, name in self._held:
            beside.append(getattr(fleet, name))
        if self.outages is not None:
            beside.append(self.outages.look())
        if self._peak_kw is not None:
            beside.append(self._peak_kw)
        if simulation.handed_back is not None:
            beside.append(simulation.handed_back.steps_left)
        if self.graph is not None:
            beside.append(self.graph.look())
        metrics.take(simulation.snapshot, simulation.energised, beside)
        telemetry = self.telemetry
        if self._quantiles is not None:  # last, as it sums up what was just measured
            alone = telemetry is None and not self._n_proposed
            metrics.add(self._quantiles.look(metrics, simulation.snapshot.v_pu), -1 if alone else -2)
        if telemetry is not None and telemetry.width:
            telemetry.look(metrics.results, self._of_telemetry, simulation.row, metrics.beside[-1])

    def tell_proposals(self, values: FloatArray) -> None:
        """Show what rules propose for the step to come, made of what was measured, shape (n_envs, n_proposed)."""
        self.metrics.add(values)

    @property
    def values(self) -> FloatArray:
        """Physical values whatever is told of them, shape (n_envs, n_channels); a summary is of metered nodes."""
        return self.metrics.results.take(self.places, 1)

    def _place(self, beside: Mapping[str, int | tuple[int, int]]) -> IntArray:
        """Return where each channel lies among what was measured and what :meth:`_list_beside` says lies beside it."""
        sizes = [int(np.prod(width)) for width in beside.values()]
        *starts, end = np.cumsum([self.metrics.columns["beside"].start, *sizes]).tolist()
        at = {name: np.arange(start, start + n) for name, start, n in zip(beside, starts, sizes, strict=True)}
        told = [] if self.telemetry is None else self.telemetry.marks
        marks = end - len(told) + np.arange(len(told))
        v_pu, loading_pu = (self.metrics.columns[name].start for name in ("v_pu", "loading_pu"))
        of_graphs = np.empty(0, dtype=np.int64)
        if self.graph is not None:
            named = {mark.name: place for mark, place in zip(told, marks.tolist(), strict=True)}
            of_graphs = self.graph.places(int(at["graph"][0]), v_pu, loading_pu, named)
        states = starts[1] + np.array(self._state_places, dtype=np.int64)
        nodes = at.get("quantiles", v_pu + np.arange(self._n_nodes))
        others = (at[name] for name in ("outages", "peak", "handed_back", "proposed") if name in at)
        return np.concatenate(
            (at["known"], self._place_solved(), nodes, states, *others, of_graphs, marks[self._marks])
        )

    def _place_told(self) -> tuple[IntArray, IntArray, IntArray]:
        """Return where each channel lies as it is seen, columns of those that anybody can see, and what is sent."""
        told, columns, telemetry = self.places.copy(), list(range(len(self.table))), self.telemetry
        sent = np.empty(0, np.int64)
        if telemetry is not None:
            if len(telemetry.metered):
                at = self.metrics.columns
                lowest, highest, means = (np.arange(at[n].start, at[n].stop) for n in _METERED)
                told[telemetry.metered] = np.concatenate([lowest, highest, means[:-1]])
            sent = told[np.concatenate([telemetry.places, telemetry.sources])]
            first = self.metrics.columns["beside"].stop - telemetry.width
            told[telemetry.places] = first + np.arange(len(telemetry.places))
            columns = [column for column in columns if column not in telemetry.unmetered]
        return told, np.array(columns, dtype=np.int64), sent

    def _place_solved(self) -> IntArray:
        """Return where each column of :meth:`_add_solved` lies in what was measured."""
        at = {name: np.arange(own.start, own.stop) for name, own in self.metrics.columns.items()}
        return np.concatenate(
            (
                *(at["zone_v_min_pu"], at["zone_v_mean_pu"], at["zone_v_max_pu"], at["watched_mean_pu"]),
                *(at["zone_kva"][::2], at["zone_kva"][1::2], at["zone_loading_pu"], at["watched_loading_pu"]),
                *(at["v_min_pu"], at["v_max_pu"], at["source_kva"], at["losses_kw"]),
            )
        )

    def state(self) -> FloatArray:
        """Copy what is known of the day of each environment; all else is filled anew from the solved state."""
        return self._exogenous.copy()

    def restore(self, state: FloatArray) -> None:
        """Put a :meth:`state` back; call :meth:`measure` then."""
        self._exogenous[...] = state

    def columns_by_owner(self) -> dict[str, list[int]]:
        """Return the columns of each owner, in table order."""
        found: dict[str, list[int]] = {}
        for column, channel in enumerate(self.table):
            found.setdefault(channel.owner, []).append(column)
        return found


class _Quantiles:
    """Sum up node voltages in as many numbers for every feeder: quantiles, mean, share outside the band.

    Args:
        n_nodes: Number of nodes.
        metered: Those that are measured, all if not given.
    """

    def __init__(self, n_nodes: int, metered: IntArray | None = None) -> None:
        self._metered, self._n_nodes = metered, n_nodes if metered is None else len(metered)
        place = np.array(_PERCENTS) / 100.0 * (self._n_nodes - 1)
        self._below = np.floor(place).astype(np.int64)
        self._above = np.minimum(self._below + 1, self._n_nodes - 1)
        self._weight = place - self._below

    def look(self, metrics: Metrics, v_pu: FloatArray) -> FloatArray:
        """Return the summary of voltages of shape (n_envs, n_nodes), linear between neighbours as numpy has it."""
        outside = metrics.violation_count
        if self._metered is not None:
            v_pu = v_pu.take(self._metered, 1)
            outside = np.count_nonzero(metrics.violation_pu.take(self._metered, 1), axis=1)
        ordered = np.sort(v_pu, axis=1)
        below = ordered[:, self._below]
        between = below + (ordered[:, self._above] - below) * self._weight
        return np.column_stack((between, v_pu.mean(axis=1), outside / self._n_nodes))
