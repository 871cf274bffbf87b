"""What each device of a scenario is in the circuit as played: its element, where it is tied, what it measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.simulation import Simulation

IntArray = npt.NDArray[np.int64]

_NOMINAL_V = 120.0


@dataclass(frozen=True)
class DeviceElement:
    """The element of a device.

    Attributes:
        kind: Kind of the device.
        class_name, name: The element; of a regulator its transformer.
        bus: Bus and nodes that it is tied to, as OpenDSS writes them.
        nodes: The same by their places among the circuit's nodes, ground and neutrals left out.
        phases, kv, connection: As of the element.
        winding: Number of a regulator's winding, else 0.
        ptratio: What brings the winding's voltage to 120 V.
        feeding: ``class.name`` of the line that feeds a capacitor's bus, empty where none ends there.
    """

    kind: str
    class_name: str
    name: str
    bus: str
    nodes: IntArray
    phases: int
    kv: float
    connection: str = "wye"
    winding: int = 0
    ptratio: float = 1.0
    feeding: str = ""

    @property
    def full_name(self) -> str:
        """``Class.name``."""
        return f"{self.class_name}.{self.name}"


def describe_elements(simulation: Simulation) -> dict[str, DeviceElement]:
    """Return the element of each device, by its name."""
    circuit = simulation.circuits[0]
    found = dict(_power(simulation, circuit))
    for fleet in simulation.fleets:
        for name, spec in zip(fleet.names, fleet.specs, strict=True):
            if fleet.kind == "regulator":
                place = circuit.switchgear.find_regulator(str(spec.element).lower(), spec.winding or 0)
                found[name] = _winding(circuit, place)
            elif fleet.kind == "capacitor":
                found[name] = _capacitor(circuit, str(spec.element).partition(".")[2].lower())
            elif fleet.kind == "switch":
                own = str(spec.element).partition(".")[2].lower()
                found[name] = DeviceElement("switch", "Line", own, "", np.empty(0, dtype=np.int64), 3, 0.0)
    return {name: found[name] for name in simulation.device_names if name in found}


def _power(simulation: Simulation, circuit: Circuit) -> Iterator[tuple[str, DeviceElement]]:
    engine, network = circuit.engine, circuit.network
    kinds = {name: fleet.kind for fleet in simulation.fleets for name in fleet.names}
    classes = ("Load", "Generator", "PVSystem", "Storage")
    known = {engine.address(h): (c, n) for c in classes for n, h in engine.handles(c).items()}
    for i, (name, nodes) in enumerate(zip(simulation.power_device_names, circuit.device_nodes, strict=True)):
        handle = circuit.handle_of(i)
        class_name, own = known[engine.address(handle)]
        live = nodes[~network.is_neutral[nodes]]
        delta = engine.get_text(handle, class_name, "conn").lower().startswith(("d", "ll"))
        yield name, DeviceElement(
            kinds[name], class_name, own, engine.get_text(handle, class_name, "bus1"), live, engine.phases(handle),
            engine.get_float(handle, class_name, "kV"), "delta" if delta else "wye",
        )  # fmt: skip


def _winding(circuit: Circuit, place: int) -> DeviceElement:
    engine, network, regulator = circuit.engine, circuit.network, circuit.switchgear.regulators[place]
    handle, phases = regulator.handle, engine.phases(regulator.handle)
    ref = engine.node_ref(handle).reshape(engine.terminals(handle))[regulator.winding - 1]
    nodes = np.unique(ref[ref > 0]) - 1
    nodes = nodes[~network.is_neutral[nodes]]
    kv = float(engine.get_floats(handle, regulator.class_name, "kVs")[regulator.winding - 1])
    delta = bool(engine.get_ints(handle, regulator.class_name, "Conns")[regulator.winding - 1])
    volts = 1000.0 * kv / (3.0**0.5 if phases > 1 and not delta else 1.0)
    return DeviceElement(
        "regulator", regulator.class_name, regulator.transformer, "", nodes, phases, kv, "delta" if delta else "wye",
        regulator.winding, volts / _NOMINAL_V,
    )  # fmt: skip


def _capacitor(circuit: Circuit, name: str) -> DeviceElement:
    engine, network = circuit.engine, circuit.network
    handle, branches = circuit.handles["Capacitor"][name], network.branches
    ref = engine.node_ref(handle)[: engine.phases(handle)]
    nodes = ref[ref > 0] - 1
    branch = network.branch_index[f"capacitor.{name}"]
    bus = branches.terminal_bus[np.searchsorted(branches.terminal_branch, branch)]
    ends = np.flatnonzero(branches.terminal_bus == bus)
    lines = [int(branches.terminal_branch[end]) for end in ends if end and branches.terminal_branch[end - 1] == branches.terminal_branch[end]]  # fmt: skip  # noqa: E501
    feeding = next((branches.names[line] for line in lines if branches.names[line].startswith("line.")), "")
    kv = engine.get_float(handle, "Capacitor", "kV")
    return DeviceElement(
        "capacitor", "Capacitor", name, "", nodes, engine.phases(handle), kv,
        ptratio=float(network.v_base[nodes].mean()) / _NOMINAL_V, feeding=feeding,
    )  # fmt: skip
