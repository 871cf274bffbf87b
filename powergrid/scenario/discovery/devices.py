"""Which devices a feeder gets: its own elements, with the ratings the model gives, and panels and batteries added."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.feeder.network import Network
from powergrid.scenario.discovery.equipment import Element, Equipment, phases_served
from powergrid.scenario.vocabulary import AddDerSpec, DiscoverSpec, Patterns

#: What a kWh of a feeder's own generator costs where the model, as OpenDSS has it, names no fuel.
FUEL_USD_PER_KWH = 0.15
#: A flexible load defers at most so many hours of its rated demand.
DEFERRED_HOURS = 2.0
#: Most sites of panels where no number is asked for.
MOST_SITES = 24
_MAX_SHOWN = 6


@dataclass(frozen=True)
class Device:
    """A device and where it acts.

    Attributes:
        name: The device's name.
        spec: What a scenario says of it.
        bus: Index of its bus.
        phases: Phases of the source at the nodes it is tied to.
    """

    name: str
    spec: dict[str, Any]
    bus: int
    phases: tuple[int, ...]


@dataclass
class Findings:
    """What was found, and what was left with the key that includes it.

    Attributes:
        devices: The devices, kind by kind.
        notes: One sentence for each thing left out.
        hints: One for what could be added besides.
        problems: Names asked for that the feeder lacks.
    """

    devices: list[Device] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_devices(equipment: Equipment, options: DiscoverSpec) -> Findings:
    """Turn what a feeder has to control into devices."""
    found = Findings()
    take = _Selection(options, found)
    take.kind("storage", "Storage", equipment.storage, options.storage, _storage, "ess", "p_max_kw", ("e_max_kwh",))
    take.kind("pv", "PVSystem", equipment.pv, options.pv, _inverter, "pv", "p_max_kw")
    take.kind("generators", "Generator", equipment.generators, options.generators, _generator, "gen", "p_max_kw")
    take.kind("capacitors", "capacitor", equipment.capacitors, options.capacitors, _capacitor, "cap", "kvar")
    take.kind("regulators", "regulator control", equipment.regulators, options.regulators, _regulator, "reg", "")
    _take_tap_changers(equipment, options, take)
    _take_switches(equipment, options, take)
    _take_loads(equipment, options, take)
    if equipment.series_capacitors:
        found.notes.append(f"{_listed(equipment.series_capacitors)}: in series, so not for switching")
    return found


class _Selection:
    """Take elements as devices, under names that are all different, and note what is left."""

    def __init__(self, options: DiscoverSpec, found: Findings) -> None:
        self.found, self._most = found, options.max_per_kind
        self._names: set[str] = set()

    def kind(
        self,
        key: str,
        what: str,
        elements: Sequence[Element],
        wanted: bool | Patterns,
        spec_of: Callable[[Element], dict[str, Any]],
        prefix: str,
        size: str,
        needed: Sequence[str] = (),
    ) -> None:
        """Take the elements of a kind that are wanted, the largest first where there are too many."""
        needed = (size, *needed) if size else needed
        useless = [e for e in elements if any(not e.ratings[rating] > 0.0 for rating in needed)]
        usable = [e for e in elements if e not in useless]
        chosen = usable
        if isinstance(wanted, tuple):
            chosen = self.pick(key, what, elements, wanted)
            useless = [e for e in chosen if e in useless]
            chosen = [e for e in chosen if e not in useless]
        elif not wanted:
            if elements:
                self.note(f"{_listed([e.name for e in elements])} left to the feeder; discover.{key}: true takes them")
            return
        else:
            chosen = self.largest(key, usable, size)
        if useless:
            self.note(f"{_listed([e.name for e in useless])} left out: no {' or '.join(needed)} above 0 in the model")
        for element in chosen:
            self.add(element, spec_of(element), prefix)

    def largest(self, key: str, usable: list[Element], size: str) -> list[Element]:
        """Return the elements with the highest rating, as many as are taken of a kind, and note the others."""
        if len(usable) <= self._most:
            return usable
        order = sorted(range(len(usable)), key=lambda i: (-usable[i].ratings.get(size, 0.0), i))
        rest = [usable[i].name for i in sorted(order[self._most :])]
        self.note(
            f"{_listed(rest)} left to the feeder: more than discover.max_per_kind = {self._most}; raise it, or "
            f"name them in discover.{key}"
        )
        return [usable[i] for i in sorted(order[: self._most])]

    def pick(self, key: str, what: str, elements: Sequence[Element], wanted: Patterns) -> list[Element]:
        """Pick elements by name or pattern, in the feeder's order."""
        names = [e.name.partition(".")[2] for e in elements]
        for pattern in wanted:
            if not any(_fits(name, pattern) for name in names):
                self.found.problems.append(f"discover.{key}: {describe_unknown(what, pattern, names)}")
        return [e for e, name in zip(elements, names, strict=True) if any(_fits(name, p) for p in wanted)]

    def add(self, element: Element, spec: dict[str, Any], prefix: str) -> None:
        """Take one element."""
        name = name_device(element.name.partition(".")[2], prefix, self._names)
        self.found.devices.append(Device(name, spec, element.bus, element.phases))

    def note(self, sentence: str) -> None:
        """Note what is left."""
        self.found.notes.append(sentence)


def name_device(stem: str, prefix: str, taken: set[str]) -> str:
    """Make a device's name that is not taken yet, and take it: letters, digits and ``_``."""
    stem = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower() or "1"
    first = name = stem if stem.startswith(prefix) else f"{prefix}_{stem}"
    number = 2
    while name in taken:
        name, number = f"{first}_{number}", number + 1
    taken.add(name)
    return name


def _fits(name: str, pattern: str) -> bool:
    return name == pattern.lower() or fnmatch.fnmatchcase(name, pattern.lower())


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:_MAX_SHOWN])
    return shown if len(names) <= _MAX_SHOWN else f"{shown}, ... ({len(names)} in all)"


def _storage(element: Element) -> dict[str, Any]:
    r = element.ratings
    soc_min = min(max(r["reserve_percent"] / 100.0, 0.0), 0.9)
    return {
        "kind": "storage",
        "element": element.name,
        "e_max_kwh": r["e_max_kwh"],
        "p_max_kw": r["p_max_kw"],
        "s_max_kva": max(r["s_max_kva"], r["p_max_kw"]),
        "soc_min": soc_min,
        "soc_max": 1.0,
        "soc_initial": min(max(r["stored_percent"] / 100.0, soc_min), 1.0),
        "eta_charge": _share(r["eta_charge_percent"]),
        "eta_discharge": _share(r["eta_discharge_percent"]),
        "reactive": True,
    }


def _share(percent: float) -> float:
    return percent / 100.0 if 0.0 < percent <= 100.0 else 0.95


def _inverter(element: Element) -> dict[str, Any]:
    r = element.ratings
    spec = {"kind": "inverter", "element": element.name, "p_max_kw": r["p_max_kw"], "reactive": "category_b"}
    return spec | ({"s_max_kva": r["s_max_kva"]} if r["s_max_kva"] > 0.0 else {})


def _generator(element: Element) -> dict[str, Any]:
    r = element.ratings
    return {
        "kind": "generator",
        "element": element.name,
        "p_max_kw": r["p_max_kw"],
        "s_max_kva": max(r["s_max_kva"], r["p_max_kw"]),
        "cost_b_usd_per_kwh": FUEL_USD_PER_KWH,
        "reactive": True,
    }


def _capacitor(element: Element) -> dict[str, Any]:
    return {"kind": "capacitor", "element": element.name, "steps": int(element.ratings["steps"])}


def _regulator(element: Element) -> dict[str, Any]:
    taps = {"tap_min": int(element.ratings["tap_min"]), "tap_max": int(element.ratings["tap_max"])}
    return {"kind": "regulator", "element": element.name, **taps}


def _tap_changer(element: Element) -> dict[str, Any]:
    return {"winding": int(element.ratings["winding"]), **_regulator(element)}


def _switch(element: Element) -> dict[str, Any]:
    return {"kind": "switch", "element": element.name, "closed_initial": bool(element.ratings["closed"])}


def _take_tap_changers(equipment: Equipment, options: DiscoverSpec, take: _Selection) -> None:
    """Take transformers without a regulator control as asked for; by default those that change taps under load."""
    key, wanted, there = "tap_changers", options.tap_changers, equipment.tap_changers
    if isinstance(wanted, tuple):
        chosen = take.pick(key, "transformer without a regulator control", there, wanted)
    elif wanted == "none":
        chosen = []
    else:
        chosen = take.largest(key, [e for e in there if wanted == "all" or not e.note], "s_max_kva")
    for element in chosen:
        take.add(element, _tap_changer(element), "reg")
    for why in dict.fromkeys(e.note for e in there):
        rest = [e.name for e in there if e.note == why and e not in chosen]
        if not rest or wanted == "all":
            continue
        reason = why or "discover.tap_changers leaves them out"
        keys = "names in discover.tap_changers take them" + (", or all" if why or wanted == "none" else "")
        take.found.hints.append(f"{_listed(rest)}: taps without a RegControl stay ({reason}); {keys}")


def _take_switches(equipment: Equipment, options: DiscoverSpec, take: _Selection) -> None:
    """Take switches as asked for; by default only those whose opening, all together, cuts nobody off."""
    wanted = options.switches
    if isinstance(wanted, tuple):
        chosen = take.pick("switches", "switch", equipment.switches, wanted)
    elif wanted == "all":
        chosen = [e for e in equipment.switches if not e.note]
    elif wanted == "auto":
        chosen = find_harmless_switches(equipment.network, [e for e in equipment.switches if not e.note])
    else:
        chosen = []
    for element in chosen:
        take.add(element, _switch(element), "sw")
    rest = [e for e in equipment.switches if e not in chosen]
    radial = [e.name for e in rest if not e.note]
    if radial:
        why = "opening them would cut off what lies behind" if wanted == "auto" else "as asked"
        take.note(f"{_listed(radial)} stay as they are: {why}; discover.switches: all takes them, or a list of names")
    for why in dict.fromkeys(e.note for e in rest if e.note):
        names = [e.name for e in rest if e.note == why]
        reason = f"protected by {why}" if "." in why else why
        take.note(f"{_listed(names)} stay as they are: {reason}; name them in discover.switches to take them")


def find_harmless_switches(network: Network, switches: Sequence[Element]) -> list[Element]:
    """Return the switches of which any may be open, and any other closed, with every fed bus still fed.

    Open ties between fed buses are among them. Closed switches are tried in the feeder's order, and kept where the
    feeder hangs together with this one and all kept before it open.
    """
    graph: nx.MultiGraph[int] = nx.MultiGraph()
    wires: dict[int, list[tuple[int, int]]] = {}
    for branch, one, other in network.wires():
        wires.setdefault(branch, []).append((one, other))
        graph.add_edge(one, other, branch)
    harmless = []
    for element in switches:
        branch = int(element.ratings["branch"])
        own = wires.get(branch, [])
        for one, other in own:
            graph.remove_edge(one, other, branch)
        if all(nx.has_path(graph, one, other) for one, other in own):
            harmless.append(element)
        else:
            for one, other in own:
                graph.add_edge(one, other, branch)
    return harmless


def _take_loads(equipment: Equipment, options: DiscoverSpec, take: _Selection) -> None:
    """Take loads as flexible: OpenDSS marks none as such, so only those that are asked for."""
    elements = [load for load in equipment.loads if load.ratings["p_max_kw"] > 0.0]
    if isinstance(options.flexible_loads, tuple):
        chosen = take.pick("flexible_loads", "load", elements, options.flexible_loads)
    else:
        order = sorted(range(len(elements)), key=lambda i: (-elements[i].ratings["p_max_kw"], i))
        chosen = [elements[i] for i in sorted(order[: options.flexible_loads])]
    for element in chosen:
        owed = DEFERRED_HOURS * element.ratings["p_max_kw"]
        take.add(element, {"kind": "flexible_load", "element": element.name, "owed_max_kwh": owed}, "flex")
    if elements and not chosen:
        take.found.hints.append(
            f"no load defers demand ({len(elements)} in all): OpenDSS marks none as interruptible; "
            "discover.flexible_loads: 10 takes the ten largest, or a list of names"
        )


def place_der(equipment: Equipment, options: AddDerSpec, taken: set[str]) -> list[Device]:
    """Place panels and batteries up to a penetration: seeded, at load buses, on the phases there are.

    Buses are drawn without replacement, by chance in proportion to their nominal demand; so is the panels' power
    among them. Each site gets a battery beside its panels. They are tied to the phases of the bus, between phases
    where a load there is, else to ground.

    Args:
        equipment: What the feeder has.
        options: How much and where from.
        taken: Names of devices there are already; those placed are added.

    Raises:
        ScenarioError: the feeder has no load to measure the penetration by.
    """
    loads = equipment.network.loads
    demand: dict[int, float] = {}
    for bus, kw in zip(loads.bus.tolist(), loads.kw.tolist(), strict=True):
        if kw > 0.0 and equipment.bus_phases[bus]:
            demand[bus] = demand.get(bus, 0.0) + kw
    if not demand:
        lacks = "add_der: the feeder has no load with active power, so there is no penetration"
        raise ScenarioError(equipment.feeder, [lacks])
    buses = sorted(demand)
    weights = np.array([demand[bus] for bus in buses])
    n_sites = options.sites or min(MOST_SITES, max(1, round(len(buses) ** 0.5)))
    rng = np.random.default_rng(options.seed)
    drawn = rng.choice(len(buses), size=min(n_sites, len(buses)), replace=False, p=weights / weights.sum())
    chosen = sorted(drawn.tolist())
    total_kw = options.penetration * float(loads.kw.sum())
    shares = weights[chosen] / weights[chosen].sum()
    placed: list[Device] = []
    for place, share in zip(chosen, shares.tolist(), strict=True):
        placed += _place_site(equipment, options, buses[place], float(f"{total_kw * share:.4g}"), taken)
    return placed


def _place_site(equipment: Equipment, options: AddDerSpec, bus: int, p_kw: float, taken: set[str]) -> Iterator[Device]:
    """Yield the panels of a bus, and the battery beside them."""
    network, loads, phases = equipment.network, equipment.network.loads, equipment.bus_phases[bus]
    name, served = network.buses[bus], phases_served(network, network.nodes_of([bus]))
    where: dict[str, Any] = {"bus": name}
    if phases != (1, 2, 3):
        where["phases"] = list(phases)
    here = zip(loads.bus.tolist(), loads.kw.tolist(), equipment.delta_loads, strict=True)
    if len(phases) > 1 and any(between and kw > 0.0 for at, kw, between in here if at == bus):
        where["connection"] = "delta"
    pv = {"kind": "inverter", **where, "p_max_kw": p_kw, "reactive": "category_b"}
    yield Device(name_device(name, "pv", taken), pv, bus, served)
    if options.storage_share > 0.0:
        power = float(f"{options.storage_share * p_kw:.4g}")
        energy = float(f"{power * options.storage_hours:.4g}")
        ess = {"kind": "storage", **where, "e_max_kwh": energy, "p_max_kw": power, "reactive": True}
        yield Device(name_device(name, "ess", taken), ess, bus, served)
