"""Whether a feeder solves where agents can take it, not only as it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from powergrid.check.elements import Model
from powergrid.errors import FeederError, list_names
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.devices import SPECS
from powergrid.grid.fleets import place_devices, sort_devices

#: Shares of nominal demand at which agents' extremes are tried.
_SHARES = (1.0, 0.3)


class Reach(NamedTuple):
    """The least and the most that a device with power can do [kW], [kvar]."""

    p_kw: tuple[float, float]
    q_kvar: tuple[float, float]


def check_extremes(model: Model, devices: Mapping[str, Mapping[str, Any]]) -> None:
    """Solve with all devices at their most and at their least, at nominal and at light demand; take down what fails.

    Args:
        model: The feeder.
        devices: Spec of each device that would be discovered, by name.
    """
    model.recorder.at("trying the agents' extremes")
    try:
        by_kind = sort_devices({name: SPECS[spec["kind"]].model_validate(spec) for name, spec in devices.items()})
    except ValidationError as error:
        told = "; ".join(f"{each['loc'][0] if each['loc'] else 'device'}: {each['msg']}" for each in error.errors())
        model.find("extremes", f"what would be discovered can be no device: {told}")
        return
    injections = place_devices(by_kind)
    try:
        circuit = Circuit(model.feeder, injections)
    except FeederError as error:
        model.find("extremes", f"the devices do not go on the feeder: {'; '.join(map(str, error.problems))}")
        return
    specs = {name: spec for group in by_kind.values() for name, spec in group.items()}
    reach = [reach_of(specs[injection.name]) for injection in injections]
    failed = [what for what, solves in _try_all(circuit, reach, by_kind) if not solves]
    if failed:
        model.find("extremes", f"no solution with {list_names(failed)}")
    circuit.close()


def _try_all(
    circuit: Circuit, reach: list[Reach], by_kind: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, bool]]:
    """Yield each extreme in words, and whether it solves; each from the start."""
    loads, gear = circuit.network.loads, circuit.switchgear
    for share in _SHARES:
        for end, word in enumerate(("least", "most")):
            circuit.reset()
            if by_kind["regulator"]:
                circuit.switchgear.write_taps((gear.tap_min, gear.tap_max)[end])
            if by_kind["capacitor"]:
                circuit.switchgear.write_steps(gear.steps_max * end)
            circuit.write_demand(share * loads.kw, share * loads.kvar)
            p_kw = np.array([each.p_kw[end] for each in reach])
            q_kvar = np.array([each.q_kvar[end] for each in reach])
            circuit.write_injections(p_kw, q_kvar)
            powers = f" ({p_kw.sum():,.0f} kW, {q_kvar.sum():,.0f} kvar)" if len(reach) else ""
            yield f"all devices at their {word}{powers} and {100 * share:g} % of the demand", circuit.solve()


def reach_of(spec: Any) -> Reach:
    """Return what a storage, inverter or generator can do at once; what a load does stays as it is."""
    if spec.kind == "storage":
        most = float(spec.p_max_kw or 0.0)
        least, s_kva = -float(spec.p_charge_max_kw or most), float(spec.s_max_kva or most)
    elif spec.kind in ("inverter", "generator"):
        most, least = float(spec.p_max_kw or 0.0), 0.0
        s_kva = float(spec.s_max_kva or (1.1 if spec.kind == "inverter" else 1.25) * most)
        most = min(most, s_kva, getattr(spec, "p_limit_kw", None) or math.inf)
    else:
        return Reach((0.0, 0.0), (0.0, 0.0))
    if not spec.decides_reactive:
        return Reach((least, most), (0.0, 0.0))
    rooms = (math.sqrt(max(s_kva**2 - p**2, 0.0)) for p in (least, most))
    part = 0.44 if str(getattr(spec, "reactive", "")).startswith("category") else 1.0  # IEEE 1547-2018, Table 7
    low, high = (min(room, part * s_kva) for room in rooms)
    return Reach((least, most), (spec.q_range(low, low)[0], spec.q_range(high, high)[1]))
