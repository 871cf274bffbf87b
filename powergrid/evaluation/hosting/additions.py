"""What is added and where: a size becomes elements at the buses of a placement, as ``feeder_changes`` of a scenario."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from powergrid.errors import Problem, ScenarioError, describe_unknown
from powergrid.grid.feeder.network import Network

FloatArray = npt.NDArray[np.float64]

Kind = Literal["pv", "storage", "ev", "load"]
#: What can be added.
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Placements that mean buses by a rule.
PLACEMENTS = ("uniform", "end", "random")
#: How each kind is built.
MEANINGS: Mapping[Kind, str] = {
    "pv": "panels that follow the sun, at unity power factor unless volt_var sets it, inverters of the same kVA",
    "storage": "batteries that do what is worst: discharge in the 4 hours of least net demand, charge in the 4 of most",
    "ev": "cars that charge at home after work; kW is what all draw together at most, its course an assumption",
    "load": "growth that follows the feeder's own demand, kW at its peak, power factor 0.95",
}
#: Charging of many cars at home, hour by hour: an assumption, most at 18 to 20 h, next to nothing in the morning.
EV_SHAPE = (
    *(0.45, 0.32, 0.22, 0.15, 0.10, 0.07, 0.06, 0.07, 0.09, 0.10, 0.11, 0.12),
    *(0.14, 0.16, 0.20, 0.30, 0.50, 0.75, 0.95, 1.00, 0.95, 0.85, 0.72, 0.58),
)
#: Hours that a battery charges and discharges a day, and what it holds, so that it never runs empty or full.
_STORAGE_HOURS, _STORAGE_KWH_PER_KW = 4, 10.0
_LOAD_PF = 0.95
#: How ``feeder_changes`` names what is added, and by what class OpenDSS knows it.
_CLASSES = {"pv": "PVSystem", "storage": "Storage", "ev": "Load", "load": "Load"}
_PREFIX, _VOLT_VAR = "hosting", "hosting_volt_var"


@dataclass(frozen=True)
class Placement:
    """Where it goes.

    Attributes:
        name: ``uniform``, ``end``, ``random``, the buses as they were named, or ``each`` of a single bus.
        shares: The part of the size at each bus; they add up to 1.
        seed: Seed of the draw, of ``random``.
    """

    name: str
    shares: Mapping[str, float]
    seed: int | None = None

    @property
    def label(self) -> str:
        """As tables and files call it."""
        return self.name if self.seed is None else f"{self.name} {self.seed}"


def place(network: Network, written: Sequence[str], seeds: Sequence[int], share: float) -> list[Placement]:
    """Return the placements that names mean.

    Args:
        network: The feeder.
        written: ``uniform`` (equal parts at all load buses), ``end`` (the load bus farthest from the source, of those
            with most phases), ``random`` (equal parts at some load buses), or buses with commas between them.
        seeds: Seeds of ``random``, a placement each.
        share: Part of the load buses that ``random`` draws, 0 to 1.

    Raises:
        ScenarioError: a bus is none of the feeder's, or there is no load; all of them.
    """
    loads, found, problems = load_buses(network), list[Placement](), list[str]()
    if not loads:
        raise ScenarioError("placement", ["the feeder has no load, so no load buses"])
    for name in dict.fromkeys(_split(written)):
        if name == "uniform":
            found.append(Placement(name, _evenly(loads)))
        elif name == "end":
            found.append(Placement(name, _evenly([_find_end(network, loads)])))
        elif name == "random":
            count = max(1, round(share * len(loads)))
            for seed in seeds:
                drawn = np.random.default_rng(seed).choice(len(loads), count, replace=False)
                found.append(Placement(name, _evenly([loads[i] for i in np.sort(drawn)]), seed))
        else:
            buses = [bus.strip().lower() for bus in name.split(",")]
            for bus in buses:
                unknown = network.find("bus", bus)
                if bus in PLACEMENTS and isinstance(unknown, Problem):
                    problems.append(f"{name!r}: {bus!r} stands for buses of its own; give it apart from those named")
                elif isinstance(unknown, Problem):
                    problems.append(f"{describe_unknown('placement', bus, PLACEMENTS)}, or buses; {unknown.text}")
            found.append(Placement(name, _evenly(buses)))
    if problems:
        raise ScenarioError("placement", problems)
    return found


def _split(written: Sequence[str]) -> Iterator[str]:
    """Yield placements one by one: words may come with commas between them too."""
    for name in written:
        words = [word.strip().lower() for word in name.split(",")]
        yield from words if set(words) <= set(PLACEMENTS) else [name]


def load_buses(network: Network) -> list[str]:
    """Name the buses with loads on phases, in the order of the feeder."""
    with_phase = set(network.node_bus[network.is_phase].tolist())
    fed = set(network.tree.order.tolist())
    return [network.buses[bus] for bus in sorted(set(network.loads.bus.tolist())) if bus in with_phase and bus in fed]


def _evenly(buses: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(buses, 1.0 / len(set(buses)))


def _find_end(network: Network, loads: Sequence[str]) -> str:
    """Return the farthest of the load buses with most phases."""
    phases = np.bincount(network.node_bus[network.is_phase], minlength=len(network.buses))
    places = np.array([network.bus_index[bus] for bus in loads])
    most = places[phases[places] == phases[places].max()]
    km = network.distances_km()[most]
    far = np.where(np.isfinite(km), km, -1.0)
    if np.ptp(far) <= 0.0:  # without lengths by the number of branches on the way
        far = network.tree.depth[most].astype(np.float64)
    return network.buses[int(most[int(far.argmax())])]


def build(kind: Kind, kw: float, placement: Placement, shape: Sequence[float], *, volt_var: bool) -> dict[str, Any]:
    """Return what is added as the ``add`` of ``feeder_changes``."""
    added: dict[str, Any] = {}
    for number, (bus, part) in enumerate(placement.shares.items()):
        own: dict[str, Any] = {"bus": bus, "shape": tuple(shape)}
        match kind:
            case "pv":
                own |= {"kind": "pv", "p_max_kw": part * kw}
            case "storage":
                own |= {"kind": "storage", "p_max_kw": part * kw, "e_max_kwh": part * kw * _STORAGE_KWH_PER_KW}
            case _:
                own |= {"kind": "load", "p_kw": part * kw, "pf": _LOAD_PF if kind == "load" else 1.0}
        added[f"{_PREFIX}_{number}"] = own
    control = {"kind": "volt_var", "inverters": tuple(added)}
    return added | ({_VOLT_VAR: control} if volt_var else {})


def list_elements(kind: Kind, placement: Placement) -> list[str]:
    """Name the elements that :func:`build` adds, as ``Class.name``."""
    return [f"{_CLASSES[kind]}.{_PREFIX}_{number}" for number in range(len(placement.shares))]


def shape_of(kind: Kind, demand_kw: FloatArray, net_kw: FloatArray) -> tuple[float, ...]:
    """Return what a kind does over a day, in parts of its size; empty where it follows the sun.

    Args:
        kind: What is added.
        demand_kw, net_kw: Demand of the feeder over a mean day of those looked at, and the same less what the sun gives
            panels of that peak, both evenly over the day.
    """
    if kind == "pv":
        return ()
    if kind == "ev":
        return EV_SHAPE
    if kind == "load":
        return tuple((demand_kw / max(float(demand_kw.max()), 1e-9)).tolist())
    order, count = np.argsort(net_kw, kind="stable"), max(1, round(_STORAGE_HOURS * len(net_kw) / 24.0))
    acts = np.zeros(len(net_kw))
    acts[order[:count]], acts[order[-count:]] = 1.0, -1.0
    return tuple(acts.tolist())
