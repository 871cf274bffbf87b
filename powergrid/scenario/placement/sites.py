"""Where things are on a feeder, in measures that compare between feeders: phases, voltage, distance, demand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
import numpy.typing as npt

from powergrid.scenario.discovery.equipment import Element, Equipment

FloatArray = npt.NDArray[np.float64]
_LOW_VOLTAGE = 1000.0


@dataclass(frozen=True)
class Sites:
    """A feeder's buses and elements, measured.

    Attributes:
        name: What errors call the feeder.
        equipment: What it has.
    """

    name: str
    equipment: Equipment

    @cached_property
    def distance(self) -> FloatArray:
        """Electrical distance of each bus from the source, as part of the farthest's; 1 where nothing feeds it."""
        network = self.equipment.network
        found = nx.single_source_dijkstra_path_length(self.equipment.lengths, network.source_bus)
        farthest = max(found.values()) or 1.0
        return np.array([found.get(bus, farthest) / farthest for bus in range(len(network.buses))])

    @cached_property
    def load_kw(self) -> FloatArray:
        """Nominal demand at each bus [kW], shape (n_buses,)."""
        network = self.equipment.network
        return np.bincount(network.loads.bus, np.abs(network.loads.kw), len(network.buses)).astype(np.float64)

    @cached_property
    def total_kw(self) -> float:
        """Nominal demand of the feeder [kW]."""
        return float(self.load_kw.sum())

    @cached_property
    def volts(self) -> FloatArray:
        """Line-to-neutral base voltage of each bus [V], shape (n_buses,)."""
        network = self.equipment.network
        volts = np.ones(len(network.buses))
        volts[network.node_bus] = np.maximum(network.v_base, 1.0)
        return volts

    @property
    def phases(self) -> tuple[tuple[int, ...], ...]:
        """Phase numbers of each bus's nodes, 1 to 3 alone."""
        return self.equipment.bus_phases

    @cached_property
    def three_wire(self) -> bool:
        """Whether all loads are tied between phases: such a feeder has no neutral to hold others."""
        return bool(self.equipment.delta_loads) and all(self.equipment.delta_loads)

    @cached_property
    def fed(self) -> frozenset[int]:
        """Buses that the source feeds."""
        return frozenset(self.equipment.network.tree)

    def describe(self, bus: int) -> str:
        """Say a bus with what it has."""
        kv = self.volts[bus] * 3**0.5 / 1000.0
        phases = ".".join(map(str, self.phases[bus]))
        return f"{self.equipment.network.buses[bus]} (phases {phases}, {kv:.3g} kV, {self.load_kw[bus]:.0f} kW)"

    def hosts(self, buses: Iterable[int]) -> list[int]:
        """Return the fed buses among some that may take a device: not the source's, medium voltage if there is any."""
        source = self.equipment.network.source_bus
        usable = [bus for bus in buses if bus in self.fed and self.phases[bus]]
        usable = [bus for bus in usable if bus != source] or usable
        return [bus for bus in usable if self.volts[bus] * 3**0.5 > _LOW_VOLTAGE] or usable

    def demand_at(self, buses: Sequence[int], zone: Iterable[int]) -> FloatArray:
        """Return the nominal demand of a zone by the bus of some that it hangs on: its own, or the nearest one above.

        Returns:
            Demand [kW], shape (n_buses,).
        """
        tree, place = self.equipment.network.tree, {bus: i for i, bus in enumerate(buses)}
        found = np.zeros(len(place))
        for bus in zone:
            at: int | None = bus
            while at is not None and at not in place:
                at = next(iter(tree.predecessors(at)), None) if at in tree else None
            if at is not None:
                found[place[at]] += self.load_kw[bus]
        return found

    def elements(self, class_name: str) -> list[Element]:
        """Return the elements of a class that a device may be bound to, in the order of their distance."""
        has = self.equipment
        tapped = (*has.regulators, *(element for element in has.tap_changers if not element.note))
        kinds: dict[str, Sequence[Element]] = {
            **dict.fromkeys(("regcontrol", "transformer", "autotrans"), tapped),
            "capacitor": has.capacitors,
            "storage": has.storage,
            "pvsystem": has.pv,
            "generator": has.generators,
            "line": has.switches,
            "load": has.loads,
        }
        return self.in_order(kinds.get(class_name, ()))

    def in_order(self, elements: Iterable[Element]) -> list[Element]:
        """Return elements, each once, in the order of their distance."""
        once = {element.name.lower(): element for element in elements}
        return sorted(once.values(), key=lambda element: float(self.distance[element.bus]))

    def has(self, name: str) -> bool:
        """Say whether there is a ``class.name`` that a device could be bound to."""
        class_name, _, rest = name.lower().partition(".")
        network = self.equipment.network
        if class_name == "line":
            return rest in network.switches
        if class_name == "capacitor":
            return rest in network.capacitors
        return self.equipment.find(name) is not None


def like_bus(home: Sites, bus: int, phases: Sequence[int], there: Sites, count: int = 3) -> list[int]:
    """Return the buses of a feeder that are most like one of another: phases first, then voltage, distance, demand."""
    share = float(home.load_kw[bus]) / max(home.total_kw, 1e-9)

    def unlike(other: int) -> tuple[int, float]:
        missing = len(set(phases) - set(there.phases[other]))
        level = abs(float(np.log(there.volts[other] / home.volts[bus])))
        far = abs(float(there.distance[other] - home.distance[bus]))
        heavy = abs(float(there.load_kw[other]) / max(there.total_kw, 1e-9) - share)
        return missing, 0.5 * level + far + heavy

    return sorted(there.hosts(range(len(there.phases))), key=lambda other: (*unlike(other), other))[:count]


def like_element(home: Element, at: Sites, there: Sites, count: int = 3) -> list[Element]:
    """Return the elements of another feeder, of the same class, that are most like one: phases, rating, distance."""
    found = there.elements(home.name.lower().partition(".")[0])
    largest = max((e.ratings.get("p_max_kw", 0.0) for e in found), default=0.0) or 1.0
    own = home.ratings.get("p_max_kw", 0.0) * there.total_kw / max(at.total_kw, 1e-9)

    def unlike(element: Element) -> tuple[int, float]:
        missing = len(set(home.phases) - set(element.phases))
        far = abs(float(there.distance[element.bus] - at.distance[home.bus]))
        return missing, far + abs(element.ratings.get("p_max_kw", 0.0) - own) / largest

    return sorted(found, key=unlike)[:count]


def like_branch(name: str, home: Sites, there: Sites, count: int = 3) -> list[str]:
    """Return the branches of another feeder, of the same class, that are most like one: phases, then distance."""
    names = home.equipment.network.branches.names
    if name.lower() not in names:
        return []
    phases, far = _end_of(home, names.index(name.lower()))
    class_name = name.lower().partition(".")[0]
    branches = there.equipment.network.branches

    def unlike(branch: int) -> tuple[int, float, int]:
        other_phases, other_far = _end_of(there, branch)
        return abs(other_phases - phases), abs(other_far - far), branch

    same = [i for i, other in enumerate(branches.names) if other.startswith(f"{class_name}.") and branches.closed[i]]
    return [branches.names[i] for i in sorted(same, key=unlike)[:count]]


def _end_of(sites: Sites, branch: int) -> tuple[int, float]:
    """Return a branch's number of phases and how far its far end is."""
    branches = sites.equipment.network.branches
    return int(branches.phases[branch]), max(
        (float(sites.distance[bus]) for bus in branches.buses[branch]), default=0.0
    )
