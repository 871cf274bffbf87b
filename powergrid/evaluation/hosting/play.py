"""Play days of a scenario with something added, and what stands against limits, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.evaluation.players import Player, seat_players
from powergrid.evaluation.rollout import play_steps, start_days
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.engine import BulkWriter, Handle
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]

#: Properties by which what is added gives or draws power, in the order in which they are written back.
_POWER = {"PVSystem": ("Irradiance", "kvar"), "Storage": ("kW", "kvar"), "Load": ("kW", "kvar")}


@dataclass(frozen=True)
class Played:
    """What came of some days, step by step.

    Attributes:
        times: Time of each step.
        v_pu: Voltage of each node that counts, NaN where nothing feeds it, shape (n_steps, n_nodes).
        loading_pu: Current over normal rating of each branch that has one, shape (n_steps, n_branches).
        unbalance_pu: Farthest line-to-line voltage of each three-phase bus from their mean, over it, shape
            (n_steps, n_buses).
        reverse_kw: What flows into the source, negative where it delivers, shape (n_steps, 1).
        step_pu: Change of each node's voltage when what was added trips; no columns where nobody asked for it.
        solved: Whether every power flow converged.
        names: What the columns of each are.
        positions: Where taps and banks stood as the episode began, by regulator control and capacitor.
    """

    times: tuple[str, ...]
    v_pu: FloatArray
    loading_pu: FloatArray
    unbalance_pu: FloatArray
    reverse_kw: FloatArray
    step_pu: FloatArray
    solved: bool
    names: Mapping[str, tuple[str, ...]]
    positions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def values(self, quantity: str) -> tuple[FloatArray, tuple[str, ...]]:
        """Return one of the arrays and the names of its columns."""
        found: FloatArray = getattr(self, quantity)
        return found, self.names[quantity]


def play(scenario: Scenario, player: Player, days: Sequence[int], seed: int, trips: Sequence[str] = ()) -> Played:
    """Play days, one after the other, each from its start.

    Args:
        scenario: The scenario, what is added in its ``feeder_changes``.
        player: Who plays: a baseline by name alone, or a name and a policy.
        days: Days of the profiles.
        seed: Seed of what is random in a day.
        trips: ``Class.name`` of what trips at each step to see what voltages change by.

    Raises:
        ScenarioError, FeederError: as seating players raises them.
    """
    rows: dict[str, list[FloatArray]] = {key: [] for key in ("v_pu", "loading_pu", "unbalance_pu", "step_pu")}
    reverse, times, solved = list[float](), list[str](), True
    for _, task, seated in seat_players(scenario, [player], 1, seed):
        network, snapshot, metrics = task.simulation.network, task.simulation.snapshot, task.metrics
        nodes, rated = np.flatnonzero(network.is_phase), np.flatnonzero(network.branches.norm_amps > 0.0)
        trip = Trip(task.simulation.circuits[0], trips) if trips else None
        positions = _read_positions(task)
        for day in days:
            start_days(task, seated, [day], seed)
            for step, _ in enumerate(play_steps(task, seated, 1)):
                times.append(_say_time(task, day, step))
                fed = np.where(task.simulation.energised[0], snapshot.v_pu[0], np.nan)[nodes]
                rows["v_pu"].append(fed)
                rows["loading_pu"].append(snapshot.loading_pu[0, rated])
                rows["unbalance_pu"].append(metrics.line_unbalance_pu[0] if len(metrics.three_phase_buses) else _NONE)
                reverse.append(-float(snapshot.source_kva[0].real))
                rows["step_pu"].append(_NONE if trip is None else np.abs(fed - trip.voltages()[nodes]))
                solved &= bool(snapshot.converged[0])
        names = {
            "v_pu": tuple(network.nodes[node] for node in nodes),
            "loading_pu": tuple(network.branches.names[branch] for branch in rated),
            "unbalance_pu": tuple(network.buses[bus] for bus in metrics.three_phase_buses.tolist()),
            "reverse_kw": ("source",),
            "step_pu": tuple(network.nodes[node] for node in nodes) if trips else (),
        }
    stacked = {key: np.array(own) for key, own in rows.items()}
    return Played(
        tuple(times),
        **stacked,
        reverse_kw=np.array(reverse)[:, None],
        solved=solved,
        names=names,
        positions=positions,
    )


_NONE = np.empty(0)


def _say_time(task: GridTask, day: int, step: int) -> str:
    simulation = task.simulation
    minutes = day * 1440 + step * simulation.options.step_minutes
    return str(simulation.profiles.start.astype("datetime64[D]") + np.timedelta64(minutes, "m")).replace("T", " ")


def _read_positions(task: GridTask) -> dict[str, dict[str, int]]:
    circuit, network = task.simulation.circuits[0], task.simulation.network
    taps = dict(zip(network.regulator_controls, circuit.taps.tolist(), strict=False))
    return {"taps": taps, "steps_on": dict(zip(network.capacitors, circuit.steps_on.tolist(), strict=True))}


class Trip:
    """Find a circuit's voltages once some elements give and draw nothing, taps, banks and all else standing still.

    Args:
        circuit: The circuit.
        elements: ``Class.name`` of those that trip.
    """

    def __init__(self, circuit: Circuit, elements: Sequence[str]) -> None:
        self._circuit, engine = circuit, circuit.engine
        self._written = list[tuple[BulkWriter, str, str, list[Handle]]]()
        for class_name, keys in _POWER.items():
            handles = engine.handles(class_name)
            own = [handles[name.lower()] for each in elements for name in [each.partition(".")[2]]
                   if each.partition(".")[0] == class_name]  # fmt: skip
            self._written += [(engine.bulk_writer(class_name, key, own), class_name, key, own) for key in keys if own]

    def voltages(self) -> FloatArray:
        """Return node voltages after the trip [pu], shape (n_nodes,), NaN where no power flow is found.

        The circuit is left as it was.
        """
        circuit = self._circuit
        before, v = [circuit.engine.get_all_floats(own, *what) for _, *what, own in self._written], circuit.v.copy()
        self._write([np.zeros(len(values)) for values in before])
        converged = circuit.engine.solve()
        after: FloatArray = np.abs(circuit.v[1:]) / circuit.network.v_base
        self._write(before)
        circuit.v[:] = v
        return after if converged else np.full(len(after), np.nan)

    def _write(self, values: Sequence[FloatArray]) -> None:
        for (writer, *_), own in zip(self._written, values, strict=True):
            writer.values[:] = own
            writer.write()
        self._circuit.keep_y()
