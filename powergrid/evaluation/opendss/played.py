"""What a day came to in the engine: every value and position that was written step by step, and the voltages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError
from powergrid.evaluation.baselines import Baseline
from powergrid.evaluation.opendss.elements import DeviceElement, describe_elements
from powergrid.evaluation.rollout import play_steps, start_days
from powergrid.grid.engine import Handle, PowerReader
from powergrid.grid.feeder.compile import BRANCH_CLASSES

FloatArray = npt.NDArray[np.float64]
#: Element, terminal and phase, 0 for all phases of the terminal.
OpenPlace = tuple[str, int, int]

#: What gives or takes power and may be written outside of bulk writes too: by events, and by the feeder's own controls.
_POWER = {"Generator": ("kW", "kvar"), "PVSystem": ("Irradiance",), "Vsource": ("pu",)}
#: Classes that the feeder's own controls set the power of.
_LED = ("InvControl", "ExpControl", "StorageController", "GenDispatcher")


@dataclass(frozen=True)
class Series:
    """What one property of some elements of a class was in every step.

    Attributes:
        class_name, key, names: Class, property and elements.
        values: What it was, shape (n_steps, n_elements).
        start: What the feeder's text says of it, where nobody but an event writes it, shape (n_elements,).
    """

    class_name: str
    key: str
    names: tuple[str, ...]
    values: FloatArray
    start: FloatArray | None = None


@dataclass(frozen=True)
class Positions:
    """Where all switchgear of a circuit is.

    Attributes:
        taps: Turns ratio by transformer, as ``Class.name``, and winding [pu].
        states: States of the steps by capacitor.
        opened: What is open.
    """

    taps: dict[tuple[str, int], float]
    states: dict[str, tuple[int, ...]]
    opened: frozenset[OpenPlace]


@dataclass(frozen=True)
class PlayedDay:
    """A day as it was played, from what the engine was told to what it gave.

    Attributes:
        policy, scenario, date, day: Whose day it is, and which.
        step_minutes: Length of a step [min].
        feeder: The circuit at the start of the day, as OpenDSS commands.
        start: Where switchgear was at the start.
        positions: Where it was in each step.
        series: All that was written.
        led: Elements whose power the feeder's own controls set, ``Class.name``; the series hold what they delivered.
        daily: Elements that have a daily shape of the model's own, by class.
        elements: What each device is, by its name.
        nodes: ``bus.phase`` of each node.
        v_base: Base voltage of each [V], shape (n_nodes,).
        v_pu: What the environment saw, shape (n_steps, n_nodes).
        energised: Whether a source fed each node, shape (n_steps, n_nodes).
        losses_kw: Losses of all delivering elements, shape (n_steps,).
        handed_back: Steps, from 1, in which devices were handed back to the feeder's own controls.
    """

    policy: str
    scenario: str
    date: str
    day: int
    step_minutes: int
    feeder: str
    start: Positions
    positions: tuple[Positions, ...]
    series: tuple[Series, ...]
    led: tuple[str, ...]
    daily: dict[str, tuple[str, ...]]
    elements: dict[str, DeviceElement]
    nodes: tuple[str, ...]
    v_base: FloatArray
    v_pu: FloatArray
    energised: npt.NDArray[np.bool_]
    losses_kw: FloatArray
    handed_back: tuple[int, ...] = ()

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.v_pu)


def play_day(task: GridTask, player: Baseline, day: int, *, policy: str, seed: int = 0) -> PlayedDay:
    """Play a day in the task's first environment, and keep what came into the engine.

    Args:
        task: The task.
        player: What acts.
        day: Day of the profiles.
        policy: What the player is called.
        seed: With the day it starts the stream of what is random in it.

    Raises:
        PowerGridError: the power flow does not converge in a step.
    """
    start_days(task, player, [day], seed)
    watch = DayWatch(task)
    for _ in play_steps(task, player, 1):
        watch.look()
    return watch.day(policy)


class DayWatch:
    """Look into the engine of a task's first environment after each step.

    Args:
        task: The task, just reset.
    """

    def __init__(self, task: GridTask) -> None:
        self._simulation = simulation = task.simulation
        self._scenario = task.scenario.name
        self._circuit = circuit = simulation.circuits[0]
        self._engine, handles = circuit.engine, circuit.handles
        self._led = self._find_led()
        self._led_power = PowerReader([handle for _, _, handle in self._led]) if self._led else None
        self._refuse_twins()
        self._columns = [self._without_led(*column) for column in self._find_columns()]
        written = len(circuit.setpoints.written)
        self._unwritten = {i: self._read(*column) for i, column in enumerate(self._columns) if i >= written}
        self._storage = handles["Storage"]
        self._place_of_storage = {f"storage.{name}": i for i, name in enumerate(self._storage)}
        self._rated_kwh = self._engine.get_all_floats(list(self._storage.values()), "Storage", "kWhRated")
        self._find_openable()
        self._feeder = self._engine.to_dss()
        self._daily = self._find_daily()
        self._start = self._read_positions()
        self._stored = self._read_stored()
        self._positions: list[Positions] = []
        self._values: list[list[FloatArray]] = []
        self._handed_back: list[int] = []
        self._seen: list[tuple[FloatArray, npt.NDArray[np.bool_], float]] = []

    # -- what there is to look at

    def _find_led(self) -> list[tuple[str, str, Handle]]:
        """Return class, name and handle of what the feeder's own controls set the power of."""
        acting = [c for c in self._circuit.controls.controls if c.class_name in _LED]
        targets = dict.fromkeys(target for control in acting for target in control.targets)
        known = {f"{c}.{n}".lower(): (c, n, h) for c in ("PVSystem", "Storage", "Generator")
                 for n, h in self._circuit.handles[c].items()}  # fmt: skip
        return [known[target] for target in targets if target in known]

    def _find_columns(self) -> Iterator[tuple[str, str, dict[str, Handle]]]:
        """Yield class, property and elements of all that is written, and of what may be written by events besides."""
        engine, all_handles = self._engine, self._circuit.handles
        names = {
            class_name: {engine.address(h): n for n, h in engine.handles(class_name).items()}
            for class_name in dict.fromkeys(c for c, _, _ in self._circuit.setpoints.written)
        }
        taken: set[tuple[str, str, str]] = set()
        for class_name, key, handles in self._circuit.setpoints.written:
            own = {names[class_name][engine.address(handle)]: handle for handle in handles}
            taken |= {(class_name, key, name) for name in own}
            yield class_name, key, own
        for class_name, keys in _POWER.items():
            for key in keys:
                yield (
                    class_name,
                    key,
                    {n: h for n, h in all_handles[class_name].items() if (class_name, key, n) not in taken},
                )

    def _without_led(self, class_name: str, key: str, handles: dict[str, Handle]) -> tuple[str, str, dict[str, Handle]]:
        led = {name for other, name, _ in self._led if other == class_name}
        return class_name, key, {name: handle for name, handle in handles.items() if name not in led}

    def _find_openable(self) -> None:
        classes = (*BRANCH_CLASSES, "Vsource", "Fault", "Load", "Generator", "PVSystem", "Storage")
        self._openable = [
            (f"{class_name}.{name}", handle) for class_name in classes
            for name, handle in self._engine.handles(class_name).items()
        ]  # fmt: skip

    def _find_daily(self) -> dict[str, tuple[str, ...]]:
        """Return the elements that a daily mode would move by a shape of the model's own, by class."""
        found: dict[str, tuple[str, ...]] = {}
        for class_name in self._engine.element_classes():
            try:
                self._engine.property_index(class_name, "daily")
            except PowerGridError:
                continue
            names = tuple(
                name for name, handle in self._engine.handles(class_name).items()
                if self._engine.get_text(handle, class_name, "daily")
            )  # fmt: skip
            if names:
                found[class_name] = names
        return found

    def _refuse_twins(self) -> None:
        """Refuse elements of one name, of which commands reach the first alone.

        Raises:
            PowerGridError: there are any.
        """
        for class_name, own in self._circuit.handles.items():
            for name in own:
                if name.rpartition("#")[0] in own:  # as they are told apart here
                    twin = f"{class_name}.{name.rpartition('#')[0]}"
                    raise PowerGridError(f"several elements are called {twin}, and a script reaches one: rename them")

    # -- looking

    def _read(self, class_name: str, key: str, own: dict[str, Handle]) -> FloatArray:
        return self._engine.get_all_floats(list(own.values()), class_name, key)

    def _read_positions(self) -> Positions:
        gear, engine = self._circuit.switchgear, self._engine
        return Positions(
            {(f"{r.class_name}.{r.transformer}", r.winding): float(t)
             for r, t in zip(gear.regulators, gear.tap_pu, strict=True)},
            {name: tuple(engine.get_ints(handle, "Capacitor", "States").tolist())
             for name, handle in self._circuit.handles["Capacitor"].items()},
            frozenset(place for name, handle in self._openable for place in self._open(name, handle)),
        )  # fmt: skip

    def _read_stored(self) -> FloatArray:
        """Return what batteries hold as a step begins [kWh]: the engine moves it on by itself."""
        stored = self._engine.get_all_floats(list(self._storage.values()), "Storage", "kWhStored")
        for fleet in self._simulation.fleets:
            if fleet.kind == "storage":  # the engine has them half full, what they hold is reckoned outside of it
                for i, spec in enumerate(fleet.specs):
                    place = self._place_of_storage.get(str(spec.element or "").lower(), -1)
                    if place >= 0 and spec.control == "agent":
                        stored[place] = fleet.soc[0, i] * self._rated_kwh[place]
        return stored

    def _open(self, name: str, handle: Handle) -> Iterator[OpenPlace]:
        if not self._engine.any_open(handle):
            return
        places = self._engine.open_places(handle)
        n_phases = self._engine.phases(handle)
        for terminal in dict.fromkeys(terminal for terminal, _ in places):
            phases = [phase for at, phase in places if at == terminal]
            yield from [(name, terminal, 0)] if len(phases) == n_phases else [(name, terminal, p) for p in phases]

    def look(self) -> None:
        """Look at what was written and solved.

        Raises:
            PowerGridError: the power flow did not converge.
        """
        snapshot = self._simulation.snapshot
        if not snapshot.converged[0]:
            step = len(self._values) + 1
            raise PowerGridError(f"the power flow does not converge in step {step} of day {self._simulation.day[0]}")
        values = [self._read(*column) for column in self._columns]
        if self._led_power is not None:
            values.append(np.ascontiguousarray(-self._led_power.read()).view(np.float64))
        self._values.append([self._stored, *values])
        self._stored = self._read_stored()
        self._positions.append(self._read_positions())
        if (told := self._simulation.handed_back) is not None and told.active[0]:
            self._handed_back.append(len(self._values))
        self._seen.append((snapshot.v_pu[0].copy(), self._simulation.energised[0].copy(), float(snapshot.losses_kw[0])))

    def day(self, policy: str) -> PlayedDay:
        """Return the day so far."""
        simulation, network = self._simulation, self._circuit.network
        day = int(simulation.day[0])
        v_pu, energised, losses = zip(*self._seen, strict=True)
        return PlayedDay(
            policy=policy,
            scenario=self._scenario,
            date=str(simulation.profiles.start.astype("datetime64[D]") + day),
            day=day,
            step_minutes=simulation.options.step_minutes,
            feeder=self._feeder,
            start=self._start,
            positions=tuple(self._positions),
            series=tuple(self._series()),
            led=tuple(f"{class_name}.{name}" for class_name, name, _ in self._led),
            daily=self._daily,
            elements=describe_elements(simulation),
            nodes=network.nodes,
            v_base=network.v_base,
            v_pu=np.array(v_pu),
            energised=np.array(energised),
            losses_kw=np.array(losses),
            handed_back=tuple(self._handed_back),
        )

    def _series(self) -> Iterator[Series]:
        columns = [("Storage", "kWhStored", self._storage), *self._columns]
        stacked: Sequence[FloatArray] = [np.array(rows) for rows in zip(*self._values, strict=True)]
        for i, ((class_name, key, own), values) in enumerate(zip(columns, stacked, strict=False), -1):
            if own:
                yield Series(class_name, key, tuple(own), values, self._unwritten.get(i))
        if self._led_power is None:
            return
        delivered = stacked[-1].reshape(len(stacked[-1]), -1, 2)
        for class_name in dict.fromkeys(class_name for class_name, _, _ in self._led):
            places = [i for i, (other, _, _) in enumerate(self._led) if other == class_name]
            names = tuple(self._led[i][1] for i in places)
            p, q = delivered[:, places, 0], delivered[:, places, 1]
            key = "kW"
            if class_name == "PVSystem":  # whose active power is set by irradiance alone
                key = "Irradiance"
                p = p / np.array([self._engine.get_float(self._led[i][2], "PVSystem", "Pmpp") for i in places])
            yield Series(class_name, key, names, p)
            yield Series(class_name, "kvar", names, q)
