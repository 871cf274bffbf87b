"""Which devices a feeder gets: its own elements, with the ratings the model gives, and panels and batteries added."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from powergrid.errors import Problem, ScenarioError, describe_unknown, list_names
from powergrid.grid.feeder.network import Network, fits
from powergrid.scenario.discovery.equipment import Element, Equipment, phases_served
from powergrid.scenario.vocabulary import AddDerSpec, DiscoverSpec, Patterns

#: What a kWh of a feeder's own generator costs where the model, as OpenDSS has it, names no fuel.
FUEL_USD_PER_KWH = 0.15
#: A flexible load defers at most so many hours of its rated demand; OpenDSS has no such property.
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


def _storage(r: Mapping[str, float]) -> dict[str, Any]:
    # %reserve may be any number in a file; a battery of ours needs room between soc_min and soc_max.
    soc_min = min(max(r["reserve_percent"] / 100.0, 0.0), 0.9)
    charge = {"p_charge_max_kw": r["p_charge_max_kw"]} if r.get("p_charge_max_kw", 0.0) > 0.0 else {}
    return {
        "e_max_kwh": r["e_max_kwh"],
        "p_max_kw": r["p_max_kw"],
        **charge,
        "s_max_kva": max(r["s_max_kva"], r["p_max_kw"], *charge.values()),
        "soc_min": soc_min,
        "soc_max": 1.0,
        "soc_initial": min(max(r["stored_percent"] / 100.0, soc_min), 1.0),
        "eta_charge": _efficiency(r["eta_charge_percent"]),
        "eta_discharge": _efficiency(r["eta_discharge_percent"]),
        "standby_loss_kw": r["standby_loss_kw"],
        **_reactive(r, decides=True, none=False),
    }


def _reactive(r: Mapping[str, float], *, decides: Any, none: Any) -> dict[str, Any]:
    """Return what a device says of reactive power: which it decides, and the limits that the model gives."""
    limits = {key: r[key] for key in ("q_inject_max_kvar", "q_absorb_max_kvar") if key in r}
    return {"reactive": decides, **limits} if len(limits) < 2 or any(limits.values()) else {"reactive": none}


def _efficiency(percent: float) -> float:
    return percent / 100.0 if 0.0 < percent <= 100.0 else 0.95


def _inverter(r: Mapping[str, float]) -> dict[str, Any]:
    kva = {"s_max_kva": r["s_max_kva"]} if r["s_max_kva"] > 0.0 else {}
    limit = {"p_limit_kw": r["p_limit_kw"]} if "p_limit_kw" in r else {}
    return {"p_max_kw": r["p_max_kw"], **limit, **kva, **_reactive(r, decides="category_b", none="none")}


def _generator(r: Mapping[str, float]) -> dict[str, Any]:
    kva = max(r["s_max_kva"], r["p_max_kw"])
    fuel = {"cost_b_usd_per_kwh": FUEL_USD_PER_KWH}
    return {"p_max_kw": r["p_max_kw"], "s_max_kva": kva, **fuel, **_reactive(r, decides=True, none=False)}


def _regulator(r: Mapping[str, float]) -> dict[str, Any]:
    return {"tap_min": int(r["tap_min"]), "tap_max": int(r["tap_max"])}


@dataclass(frozen=True)
class _Kind:
    """How elements of a kind become devices.

    Attributes:
        what: What errors call such an element.
        kind: The kind of device.
        prefix: What names of the devices begin with.
        keys: What a device says of itself, from the element's ratings.
        size: The rating that says which are the largest, empty where none does.
        needed: Other ratings that a device cannot do without.
    """

    what: str
    kind: str
    prefix: str
    keys: Callable[[Mapping[str, float]], dict[str, Any]]
    size: str = ""
    needed: tuple[str, ...] = ()


#: By the key of ``discover``.
_KINDS = {
    "storage": _Kind("Storage", "storage", "ess", _storage, "p_max_kw", ("e_max_kwh",)),
    "pv": _Kind("PVSystem", "inverter", "pv", _inverter, "p_max_kw"),
    "generators": _Kind("Generator", "generator", "gen", _generator, "p_max_kw"),
    "capacitors": _Kind("capacitor", "capacitor", "cap", lambda r: {"steps": int(r["steps"])}, "kvar"),
    "regulators": _Kind("regulator control", "regulator", "reg", _regulator),
    "tap_changers": _Kind(
        "transformer without a regulator control",
        "regulator",
        "reg",
        lambda r: {"winding": int(r["winding"]), **_regulator(r)},
        "s_max_kva",
    ),
    "switches": _Kind("switch", "switch", "sw", lambda r: {"closed_initial": bool(r["closed"])}),
    "flexible_loads": _Kind(
        "load", "flexible_load", "flex", lambda r: {"owed_max_kwh": DEFERRED_HOURS * r["p_max_kw"]}, "p_max_kw"
    ),
}


class Findings:
    """What of a feeder becomes devices, under names that are all different, and what is left.

    Args:
        equipment: What the feeder has.
        options: What is to be taken.

    Attributes:
        devices: The devices, kind by kind.
        notes: One sentence for each thing left out, with the key that includes it.
        hints: One for what could be added besides.
        problems: Names asked for that the feeder lacks.
    """

    def __init__(self, equipment: Equipment, options: DiscoverSpec) -> None:
        self.devices: list[Device] = []
        self.notes: list[str] = []
        self.hints: list[str] = []
        self.problems: list[str] = []
        self._equipment, self._options = equipment, options
        self._names: set[str] = set()
        for key in ("storage", "pv", "generators", "capacitors", "regulators"):
            self._take_rated(key)
        self._take_tap_changers()
        self._take_switches()
        self._take_loads()
        if equipment.series_capacitors:
            self.notes.append(f"{_listed(equipment.series_capacitors)}: in series, so not for switching")

    def _take_rated(self, key: str) -> None:
        """Take the elements of a kind that are wanted, the largest where there are too many."""
        elements, wanted = self._equipment.elements[key], getattr(self._options, key)
        needed = [rating for rating in (_KINDS[key].size, *_KINDS[key].needed) if rating]
        if not wanted:
            if elements:
                names = _listed(element.name for element in elements)
                self.notes.append(f"{names} left to the feeder; discover.{key}: true takes them")
            return
        named = isinstance(wanted, tuple)
        chosen = self._pick(key, elements, wanted) if named else list(elements)
        useless = [e for e in chosen if any(not e.ratings[rating] > 0.0 for rating in needed)]
        chosen = [e for e in chosen if e not in useless]
        if not named:
            for note in dict.fromkeys(e.note for e in chosen if e.note):
                names = _listed(e.name for e in chosen if e.note == note)
                self.notes.append(f"{names} left out: {note}; name them in discover.{key} to take them")
            chosen = self._largest(key, [e for e in chosen if not e.note])
        if useless:
            names = _listed(element.name for element in useless)
            self.notes.append(f"{names} left out: no {' or '.join(needed)} above 0 in the model")
        self._add(key, chosen)

    def _largest(self, key: str, usable: list[Element]) -> list[Element]:
        """Return the elements with the highest rating, as many as are taken of a kind, and note the others."""
        most = self._options.max_per_kind
        if len(usable) <= most:
            return usable
        chosen = _largest_of(usable, _KINDS[key].size, most)
        taken = {e.name for e in chosen}
        self.notes.append(
            f"{_listed(e.name for e in usable if e.name not in taken)} left to the feeder: more than "
            f"discover.max_per_kind = {most}; raise it, or name them in discover.{key}"
        )
        return chosen

    def _pick(self, key: str, elements: Sequence[Element], wanted: Patterns) -> list[Element]:
        """Pick elements by name or pattern, in the feeder's order."""
        names = [e.name.partition(".")[2] for e in elements]
        for pattern in wanted:
            if not any(fits(name, pattern) for name in names):
                self.problems.append(f"discover.{key}: {describe_unknown(_KINDS[key].what, pattern, names)}")
        return [e for e, name in zip(elements, names, strict=True) if any(fits(name, p) for p in wanted)]

    def _add(self, key: str, chosen: Iterable[Element]) -> None:
        """Take elements as devices."""
        for element in chosen:
            how = _KINDS[key]
            name = _name_device(element.name.partition(".")[2], how.prefix, self._names)
            if key == "generators" and self._is_shaped(element):
                how = _KINDS["pv"]  # sun or wind: what its shape offers is free, and can be curtailed
            spec = {"kind": how.kind, "element": element.name, **how.keys(element.ratings)}
            self.devices.append(Device(name, spec, element.bus, element.phases))

    def _is_shaped(self, generator: Element) -> bool:
        """Whether a generator follows a LoadShape of its own."""
        network = self._equipment.network
        place = network.find_element(generator.name)
        if isinstance(place, Problem) or network.sources.generator_fixed[place]:
            return False
        return bool(network.followed_by("Generator")[place] >= 0)

    def _take_tap_changers(self) -> None:
        """Take transformers without a regulator control; by default those that change taps under load."""
        wanted, there = self._options.tap_changers, self._equipment.elements["tap_changers"]
        if isinstance(wanted, tuple):
            chosen = self._pick("tap_changers", there, wanted)
        else:
            usable = [] if wanted == "none" else there if wanted == "all" else self._equipment.tap_changers
            chosen = self._largest("tap_changers", list(usable))
        self._add("tap_changers", chosen)
        for why in dict.fromkeys(e.note for e in there if wanted != "all"):
            rest = [e.name for e in there if e.note == why and e not in chosen]
            reason = why or "discover.tap_changers leaves them out"
            keys = "names in discover.tap_changers take them" + (", or all" if why or wanted == "none" else "")
            if rest:
                self.hints.append(f"{_listed(rest)}: taps without a RegControl stay ({reason}); {keys}")

    def _take_switches(self) -> None:
        """Take switches; by default only those whose opening, all together, cuts nobody off."""
        wanted, there = self._options.switches, self._equipment.elements["switches"]
        free = [e for e in there if not e.note]
        if isinstance(wanted, tuple):
            chosen = self._pick("switches", there, wanted)
        elif wanted == "auto":
            chosen = _find_harmless_switches(self._equipment.network, free)
        else:
            chosen = free if wanted == "all" else []
        self._add("switches", chosen)
        rest = [e for e in there if e not in chosen]
        for why in sorted(dict.fromkeys(e.note for e in rest), key=bool):  # those that could be taken come first
            reason, remedy = why, "name them in discover.switches to take them"
            if not why:
                reason = "opening them would cut off what lies behind" if wanted == "auto" else "as asked"
                remedy = "discover.switches: all takes them, or a list of names"
            names = _listed(e.name for e in rest if e.note == why)
            self.notes.append(f"{names} stay as they are: {reason}; {remedy}")

    def _take_loads(self) -> None:
        """Take loads as flexible: OpenDSS marks none as such, so only those that are asked for."""
        wanted, n_loads = self._options.flexible_loads, int((self._equipment.network.loads.kw > 0.0).sum())
        loads = [e for e in self._equipment.flexible_loads if e.ratings["p_max_kw"] > 0.0] if wanted else []
        if isinstance(wanted, tuple):
            chosen = self._pick("flexible_loads", loads, wanted)
        else:
            chosen = _largest_of(loads, "p_max_kw", wanted)
        self._add("flexible_loads", chosen)
        if n_loads and not chosen:
            self.hints.append(
                f"no load defers demand ({n_loads} in all): OpenDSS marks none as interruptible; "
                "discover.flexible_loads: 10 takes the ten largest, or a list of names"
            )


def _largest_of(elements: Sequence[Element], size: str, most: int) -> list[Element]:
    """Return the elements with the highest rating, in the feeder's order; equally high, the first."""
    order = sorted(range(len(elements)), key=lambda i: -elements[i].ratings.get(size, 0.0))
    return [elements[i] for i in sorted(order[:most])]


def _name_device(stem: str, prefix: str, taken: set[str]) -> str:
    """Make a device's name that is not taken yet, and take it: letters, digits and ``_``."""
    # No dots above all: a dotted key, as in devices.ess_1.levels, could not name such a device.
    stem = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower() or "1"
    first = name = stem if stem.startswith(prefix) else f"{prefix}_{stem}"
    number = 2
    while name in taken:
        name, number = f"{first}_{number}", number + 1
    taken.add(name)
    return name


def _listed(names: Iterable[str]) -> str:
    return list_names(list(names), _MAX_SHOWN)


def _find_harmless_switches(network: Network, switches: Sequence[Element]) -> list[Element]:
    """Return the switches of which any may be open, and any other closed, with every fed bus still fed.

    Open ties between fed buses are among them.
    """
    if not switches:  # the graph of a large feeder takes a while
        return []
    graph: nx.MultiGraph[int] = nx.MultiGraph()
    wires: dict[int, list[tuple[int, int]]] = {}
    for branch, one, other in network.wires().T.tolist():
        wires.setdefault(branch, []).append((one, other))
        graph.add_edge(one, other, branch)
    harmless = []
    for element in switches:
        branch = int(element.ratings["branch"])
        own = wires.get(branch, [])
        # A closed one stays out of the graph where the feeder hangs together without it and all kept before.
        for one, other in own:
            graph.remove_edge(one, other, branch)
        if all(nx.has_path(graph, one, other) for one, other in own):
            harmless.append(element)
        else:
            for one, other in own:
                graph.add_edge(one, other, branch)
    return harmless


def place_der(equipment: Equipment, options: AddDerSpec, taken: set[str]) -> list[Device]:
    """Place panels and batteries up to a penetration: seeded, at load buses, on the phases there are.

    Buses are drawn without replacement, by chance in proportion to their nominal demand; the panels' power is in the
    same proportion. Names are added to those ``taken``.

    Raises:
        ScenarioError: the feeder has no load to measure the penetration by.
    """
    loads = equipment.network.loads
    demand = np.bincount(loads.bus, np.maximum(loads.kw, 0.0), len(equipment.network.buses))
    buses = [bus for bus in np.flatnonzero(demand).tolist() if equipment.bus_phases[bus]]
    if not buses:
        lacks = "add_der: the feeder has no load with active power, so there is no penetration"
        raise ScenarioError(equipment.feeder, [lacks])
    weights = demand[buses]
    n_sites = options.sites or min(MOST_SITES, max(1, round(len(buses) ** 0.5)))
    rng = np.random.default_rng(options.seed)
    drawn = rng.choice(len(buses), size=min(n_sites, len(buses)), replace=False, p=weights / weights.sum())
    chosen = sorted(drawn.tolist())
    total_kw = options.penetration * float(loads.kw.sum())
    shares = weights[chosen] / weights[chosen].sum()
    sites = ((buses[at], significant(total_kw * share)) for at, share in zip(chosen, shares.tolist(), strict=True))
    return [device for bus, p_kw in sites for device in _place_site(equipment, options, bus, p_kw, taken)]


def _place_site(equipment: Equipment, options: AddDerSpec, bus: int, p_kw: float, taken: set[str]) -> Iterator[Device]:
    """Yield the panels of a bus, and the battery beside them, tied to the bus's own phases."""
    network, loads, phases = equipment.network, equipment.network.loads, equipment.bus_phases[bus]
    name, served = network.buses[bus], phases_served(network, network.nodes_of([bus]))
    where: dict[str, Any] = {"bus": name}
    if phases != (1, 2, 3):
        where["phases"] = list(phases)
    # Between phases where a load there is, or where nothing leads to ground.
    here = zip(loads.bus.tolist(), loads.kw.tolist(), equipment.delta_loads, strict=True)
    loose = bool(np.isin(network.nodes_of([bus]), network.floating).all())
    if len(phases) > 1 and (loose or any(between and kw > 0.0 for at, kw, between in here if at == bus)):
        where["connection"] = "delta"
    pv = {"kind": "inverter", **where, "p_max_kw": p_kw, "reactive": "category_b"}
    yield Device(_name_device(name, "pv", taken), pv, bus, served)
    if options.storage_share > 0.0:
        power = significant(options.storage_share * p_kw)
        energy = significant(power * options.storage_hours)
        ess = {"kind": "storage", **where, "e_max_kwh": energy, "p_max_kw": power, "reactive": True}
        yield Device(_name_device(name, "ess", taken), ess, bus, served)


def significant(value: float, digits: int = 4) -> float:
    """Keep so many digits of a number."""
    return float(f"{value:.{digits}g}")
