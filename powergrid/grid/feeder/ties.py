"""The elements between a host's bus and a microgrid as the engine's data: switch, transformer, line, forming source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from powergrid.grid.feeder.microgrid import FormingSpec, LineTie, TransformerTie

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


def describe_tie(
    tie: TransformerTie | LineTie, name: str, ends: tuple[str, str], phases: Sequence[int], kv: tuple[float, float]
) -> dict[str, Data]:
    """Return the elements of a tie by class, all of one name; behind a transformer that also names a bus.

    Args:
        tie: What was asked for.
        name: Name of the elements.
        ends: Bus of the host and bus of the microgrid.
        phases: Phases that are tied.
        kv: Line-to-neutral base voltage of both buses [kV].
    """
    nodes = "".join(f".{phase}" for phase in phases)
    here, there = ends[0] + nodes, ends[1] + nodes
    if isinstance(tie, LineTie):
        per_km = {key: getattr(tie, own) for key, own in _PER_KM.items()}
        rating = {"NormAmps": tie.norm_amps, "EmergAmps": 1.5 * tie.norm_amps}
        line = {"Name": name, "Bus1": here, "Bus2": there, "Phases": len(phases)}
        return {"Line": {**line, **per_km, "Length": tie.length_km, "Units": "km", **rating}}
    amps = tie.s_max_kva / len(phases) / kv[1]
    switch = {"Name": name, "Bus1": name + nodes, "Bus2": there, "Phases": len(phases), "Length": 1.0}
    switch |= {key: 0.0 if key in ("C1", "C0") else _SWITCH_OHM for key in _PER_KM}
    transformer = {
        "Name": name,
        "Phases": len(phases),
        "Bus": [here, name + nodes],
        "Conn": [tie.host_connection, "wye"],
        "kV": [across_phases(each, phases) for each in kv],
        "kVA": [tie.s_max_kva, tie.s_max_kva],
        "X12": tie.x_percent,
        "pctR": [tie.r_percent / 2.0, tie.r_percent / 2.0],
    }
    return {"Line": {**switch, "NormAmps": amps, "EmergAmps": 1.5 * amps}, "Transformer": transformer}


def describe_forming_source(forming: FormingSpec, name: str, bus: str, phases: Sequence[int], kv: float) -> Data:
    """Return the source that holds a bus's voltage in the island; stiff, like an inverter that regulates it.

    Args:
        forming: What was asked for.
        name: Its name.
        bus: Where it stands.
        phases: Phases of that bus.
        kv: Line-to-neutral base voltage there [kV].
    """
    mva = _STIFFNESS * forming.p_max_kw / 1000.0
    return {
        "Name": name,
        "Bus1": bus + "".join(f".{phase}" for phase in phases),
        "Phases": len(phases),
        "BasekV": across_phases(kv, phases),
        "pu": forming.v_pu,
        "Angle": 0.0,
        "MVASC3": mva,
        "MVASC1": mva,
    }


def across_phases(kv: float, phases: Sequence[int]) -> float:
    """Return the voltage that OpenDSS rates an element by: between lines, to neutral where it has one phase."""
    return kv * 3**0.5 if len(phases) > 1 else kv
