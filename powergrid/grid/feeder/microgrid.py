"""A microgrid that is tied to a host feeder: what may be said of it, and its tie and source as the engine's data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from powergrid.grid.devices.spec import Spec

Data = dict[str, Any]

_SWITCH_OHM = 0.001  # as little as the engine's own switches have
_STIFFNESS = 1000.0  # short-circuit power of a forming source over its rating: it holds its voltage to 0.1 %
_PER_KM = {
    "R1": "r1_ohm_per_km",
    "X1": "x1_ohm_per_km",
    "R0": "r0_ohm_per_km",
    "X0": "x0_ohm_per_km",
    "C1": "c1_nf_per_km",
    "C0": "c0_nf_per_km",
}

_DRAWN_SIZE = 0.2  # of a microgrid beside its host, as a share of the host's extent, where both have coordinates
_DRAWN_GAP = 0.06  # room kept around it, likewise
_FLIPS = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
_DIRECTIONS = np.array([[np.cos(angle), np.sin(angle)] for angle in np.arange(8) * (np.pi / 4.0)])


class TransformerTie(Spec):
    """A transformer between the host's bus and the microgrid's, with the tie switch on the microgrid's side."""

    kind: Literal["transformer"] = Field(description="Kind of the tie.")
    s_max_kva: float = Field(gt=0, description="Rating [kVA].")
    x_percent: float = Field(default=5.75, gt=0, description="Leakage reactance [% of the rating].")
    r_percent: float = Field(default=1.0, ge=0, description="Resistance of both windings [% of the rating].")
    host_connection: Literal["wye", "delta"] = Field(
        default="wye", description="Connection on the host's side; the microgrid's is a grounded wye."
    )


class LineTie(Spec):
    """A line between buses of equal base voltage, which is the tie switch itself."""

    kind: Literal["line"] = Field(description="Kind of the tie.")
    length_km: float = Field(gt=0, description="Length [km].")
    r1_ohm_per_km: float = Field(ge=0, description="Positive-sequence resistance.")
    x1_ohm_per_km: float = Field(gt=0, description="Positive-sequence reactance.")
    r0_ohm_per_km: float = Field(ge=0, description="Zero-sequence resistance.")
    x0_ohm_per_km: float = Field(gt=0, description="Zero-sequence reactance.")
    c1_nf_per_km: float = Field(default=0.0, ge=0, description="Positive-sequence capacitance.")
    c0_nf_per_km: float = Field(default=0.0, ge=0, description="Zero-sequence capacitance.")
    norm_amps: float = Field(gt=0, description="Normal rating [A].")


class FormingSpec(Spec):
    """A grid-forming source at the microgrid's entry, at work while the tie is open."""

    p_max_kw: float = Field(gt=0, description="Most power it gives; beyond, consumption in the island is shed.")
    p_min_kw: float = Field(
        default=0.0, le=0, description="Least power, below 0 what it takes in; beyond, generation is curtailed."
    )
    v_pu: float = Field(default=1.0, gt=0.8, lt=1.2, description="Voltage it holds at the entry [pu].")
    cost_usd_per_kwh: float = Field(default=0.0, ge=0, description="Price of the energy it gives.")


class MicrogridSpec(Spec):
    """A feeder tied to a bus of the host feeder, under a prefix of its own."""

    feeder: str = Field(description="Name of a shipped feeder, or path of a master file.")
    bus: str = Field(description="Bus of the host feeder that it is tied to.")
    entry: str | None = Field(
        default=None,
        description="Its own bus where the tie ends; what lies between its source and that bus is left out. "
        "Its source's bus if unset.",
    )
    load_scale: float = Field(default=1.0, gt=0, le=100, description="Factor on the nominal demand of its loads.")
    tie: Annotated[TransformerTie | LineTie, Field(discriminator="kind")] = Field(
        description="How it is tied: `kind: transformer` or `kind: line`, each with keys of its own."
    )
    forming: FormingSpec | None = Field(
        default=None, description="Source that feeds it while the tie is open; without, it is dark then."
    )


@dataclass(frozen=True)
class Microgrid:
    """What became of a microgrid in a composed circuit.

    Attributes:
        name: As given, for example ``MG1``.
        buses: Its own buses under their new names.
        entry: The bus where the tie ends.
        tie: Name of the line that is the tie switch.
        source: Name of the Vsource that forms the grid while the tie is open, empty where it has none.
        forming: That source's ratings.
    """

    name: str
    buses: tuple[str, ...]
    entry: str
    tie: str
    source: str
    forming: FormingSpec | None


def describe_tie(
    tie: TransformerTie | LineTie, name: str, ends: tuple[str, str], phases: Sequence[int], kv: tuple[float, float]
) -> dict[str, Data]:
    """Return the elements of a tie by class, all of one name; behind a transformer that also names a bus.

    Args:
        tie, name, phases: What was asked for, the elements' name, the phases that are tied.
        ends, kv: Bus of the host and of the microgrid, and their line-to-neutral base voltages [kV].
    """
    nodes = "".join(f".{phase}" for phase in phases)
    here, there = ends[0] + nodes, ends[1] + nodes
    if isinstance(tie, LineTie):
        per_km = {key: getattr(tie, own) for key, own in _PER_KM.items()}
        rating = {"NormAmps": tie.norm_amps, "EmergAmps": 1.5 * tie.norm_amps}
        line = {"Name": name, "Bus1": here, "Bus2": there, "Phases": len(phases)}
        return {"Line": {**line, **per_km, "Length": tie.length_km, "Units": "km", **rating}}
    # The switch is on the microgrid's side, so it is rated at that voltage.
    amps = tie.s_max_kva / len(phases) / kv[1]
    switch = {"Name": name, "Bus1": name + nodes, "Bus2": there, "Phases": len(phases), "Length": 1.0}
    # No capacitance: the engine's default would draw charging current.
    switch |= {key: 0.0 if key in ("C1", "C0") else _SWITCH_OHM for key in _PER_KM}
    transformer = {
        "Name": name,
        "Phases": len(phases),
        "Bus": [here, name + nodes],
        "Conn": [tie.host_connection, "wye"],
        "kV": [_across_phases(each, phases) for each in kv],
        "kVA": [tie.s_max_kva, tie.s_max_kva],
        "X12": tie.x_percent,
        "pctR": [tie.r_percent / 2.0, tie.r_percent / 2.0],
    }
    return {"Line": {**switch, "NormAmps": amps, "EmergAmps": 1.5 * amps}, "Transformer": transformer}


def describe_forming_source(forming: FormingSpec, name: str, bus: str, phases: Sequence[int], kv: float) -> Data:
    """Return the source that holds a bus's voltage, in kV to neutral, while the tie is open."""
    # Stiff, like an inverter that regulates the voltage.
    mva = _STIFFNESS * forming.p_max_kw / 1000.0
    return {
        "Name": name,
        "Bus1": bus + "".join(f".{phase}" for phase in phases),
        "Phases": len(phases),
        "BasekV": _across_phases(kv, phases),
        "pu": forming.v_pu,
        "Angle": 0.0,  # the island is of its own: its angle is against nothing
        "MVASC3": mva,
        "MVASC1": mva,
    }


def _across_phases(kv: float, phases: Sequence[int]) -> float:
    """Return the voltage that OpenDSS rates an element by: between lines, to neutral where it has one phase."""
    return kv * 3**0.5 if len(phases) > 1 else kv


def place_beside(buses: list[Data], entry: str, host_buses: list[Data], host_bus: str) -> None:
    """Draw a microgrid small and in free space near its host's bus, where both have coordinates."""
    placed = [bus for bus in buses if "X" in bus and "Y" in bus]
    around = [bus for bus in host_buses if "X" in bus and "Y" in bus]
    start = next((bus for bus in placed if bus["Name"].lower() == entry), None)
    target = next((bus for bus in around if bus["Name"].lower() == host_bus.lower()), None)
    if start is None or target is None:
        for bus in placed:
            del bus["X"], bus["Y"]
        return
    host, own = _positions(around), _positions(placed) - _positions([start])
    reach = float(np.ptp(host, axis=0).max()) or 1.0
    own *= _DRAWN_SIZE * reach / (float(np.ptp(own, axis=0).max()) or 1.0)
    ways = [
        _positions([target]) + _DRAWN_GAP * reach * length * away + own * flip
        for flip in _FLIPS
        for away in _DIRECTIONS
        for length in (1.0, 2.0, 3.0, 4.0)
    ]
    from scipy.spatial.distance import cdist  # takes as long to import as all the rest of what a trial needs

    clear = [min(cdist(way, host).min() / (_DRAWN_GAP * reach), 1.0) for way in ways]
    apart = [float(np.linalg.norm(way.mean(axis=0) - _positions([target]))) / reach for way in ways]
    best = max(range(len(ways)), key=lambda i: (round(clear[i], 3), -round(apart[i], 3)))
    for bus, (x, y) in zip(placed, ways[best].tolist(), strict=True):
        bus.update(X=x, Y=y)


def _positions(buses: list[Data]) -> npt.NDArray[np.float64]:
    return np.array([[bus["X"], bus["Y"]] for bus in buses], dtype=np.float64)
