"""Short circuits that can strike a circuit: built into it at compile time, not connected until they strike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from powergrid.grid.engine import Engine


@dataclass(frozen=True)
class Fault:
    """A resistance at a bus.

    Attributes:
        bus: Bus name.
        phases: Phase numbers.
        r_ohm: Resistance in each phase [ohm].
        grounded: To ground; else between the two phases.
    """

    bus: str
    phases: tuple[int, ...]
    r_ohm: float
    grounded: bool = True


def place_faults(engine: Engine, faults: Sequence[Fault]) -> list[str]:
    """Build faults into a compiled circuit, open; give the name of each element, lower case."""
    names = []
    for number, fault in enumerate(faults):
        name = f"powergrid_{number}"
        if fault.grounded:
            nodes = ".".join(map(str, fault.phases))
            ends = f'bus1="{fault.bus}.{nodes}" phases={len(fault.phases)}'
        else:
            first, second = fault.phases
            ends = f'bus1="{fault.bus}.{first}" bus2="{fault.bus}.{second}" phases=1'
        engine.command(f"new Fault.{name} {ends} r={fault.r_ohm!r}")
        engine.set_open(engine.handles("Fault")[name], is_open=True)
        names.append(name)
    return names
