"""Write radial feeders that nobody built, each from a seed: for training on more networks than are published.

A feeder has 15 to 120 nodes: a three-phase trunk with branches, laterals of one phase, a substation with regulators,
loads of three classes with a LoadShape each, capacitors, PV and a battery. Conductors are chosen by the current that
they carry, and lengths so that at full demand the farthest bus lies as many percent below the head as drawn, by a
balanced and linear estimate; so voltages are plausible without any feeder being drawn again. Equal seeds give equal
files, byte for byte. Their line constants are those of usual overhead lines; no existing feeder is behind any of them.

Usage::

    python scripts/make_feeders.py feeders --seeds 0 1 2 3
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

#: Nodes that a feeder has, and nominal voltages line to line [kV] with the least and most demand of each [kW].
LEAST_NODES, MOST_NODES = 15, 120
LEVELS = ((4.16, 900.0, 2400.0), (12.47, 2000.0, 6500.0), (24.9, 1500.0, 5500.0))
#: What the farthest bus lies below the head at full demand, by the estimate [pu].
LEAST_DROP, MOST_DROP = 0.03, 0.09
#: Hourly demand of each class of load, of its peak.
SHAPES = {
    "residential": [.42, .38, .36, .35, .37, .45, .58, .62, .55, .50, .48, .50,
                    .52, .50, .51, .57, .70, .86, .98, 1., .94, .82, .66, .51],
    "commercial": [.32, .30, .30, .30, .31, .36, .48, .68, .87, .95, .98, 1.,
                   .99, .99, .98, .95, .88, .76, .64, .56, .48, .42, .37, .34],
    "industrial": [.62, .60, .60, .60, .63, .72, .88, .96, 1., 1., .99, .95,
                   .97, 1., .99, .95, .86, .80, .76, .72, .70, .68, .66, .64],
}  # fmt: skip


class Conductor(NamedTuple):
    """An overhead line: its name, sequence impedances [ohm/km] and ampacity [A]."""

    name: str
    r1: float
    x1: float
    r0: float
    x0: float
    amps: float


CONDUCTORS = (
    Conductor("acsr_2", 1.05, 0.49, 1.23, 1.35, 180.0),
    Conductor("acsr_1_0", 0.70, 0.47, 0.88, 1.30, 230.0),
    Conductor("acsr_4_0", 0.37, 0.44, 0.55, 1.26, 340.0),
    Conductor("acsr_336", 0.19, 0.40, 0.37, 1.20, 530.0),
    Conductor("acsr_556", 0.115, 0.38, 0.29, 1.16, 730.0),
)


@dataclass
class Bus:
    """A bus of the tree: the one above it, its phases, its demand by phase, and the line that feeds it."""

    parent: int
    phases: tuple[int, ...]
    kw: np.ndarray = field(default_factory=lambda: np.zeros(3))
    pf: float = 0.95
    shape: str = "residential"
    length_km: float = 0.0
    conductor: Conductor = CONDUCTORS[0]
    xy: tuple[float, float] = (0.0, 0.0)

    @property
    def kvar(self) -> np.ndarray:
        """Reactive demand by phase."""
        kvar: np.ndarray = self.kw * np.tan(np.arccos(self.pf))
        return kvar


def draw_tree(rng: np.random.Generator, n_nodes: int) -> list[Bus]:
    """Draw buses until there are as many nodes, the first being the head of the feeder."""
    buses, tip = [Bus(-1, (1, 2, 3))], 0
    left = n_nodes - 3
    while left > 0:
        if left >= 3 and rng.random() < 0.55:
            three = [place for place, bus in enumerate(buses) if len(bus.phases) == 3]
            parent = tip if rng.random() < 0.7 else int(rng.choice(three))
            phases: tuple[int, ...] = (1, 2, 3)
        else:
            parent = int(rng.integers(len(buses)))
            own = buses[parent].phases
            phases = own if len(own) == 1 else (int(rng.integers(1, 4)),)
        tip = len(buses) if parent == tip and len(phases) == 3 else tip
        (x, y), turn = buses[parent].xy, rng.uniform(-0.9, 0.9) + (0.0 if len(phases) == 3 else np.pi / 2.0)
        place = (round(x + float(np.cos(turn)), 3), round(y + float(np.sin(turn)), 3))
        buses.append(Bus(parent, phases, xy=place))
        left -= len(phases)
    return buses


def draw_demand(rng: np.random.Generator, buses: Sequence[Bus], total_kw: float) -> None:
    """Hang demand on two buses of three, the ends of all branches among them."""
    parents = {bus.parent for bus in buses}
    for place, bus in enumerate(buses[1:], start=1):
        bus.shape = str(rng.choice(list(SHAPES), p=[0.6, 0.27, 0.13]))
        bus.pf = float(round(rng.uniform(0.88, 0.97), 3))
        if place in parents and rng.random() > 0.6:
            continue
        phases = np.array(bus.phases) - 1
        bus.kw[phases] = rng.lognormal(0.0, 0.5) * rng.uniform(0.6, 1.4, len(phases))
    scale = total_kw / sum(bus.kw.sum() for bus in buses)
    for bus in buses:
        bus.kw = np.round(bus.kw * scale, 1)


def size_lines(rng: np.random.Generator, buses: Sequence[Bus], kv: float, drop_pu: float) -> None:
    """Choose conductors by what they carry, and lengths by what the farthest bus may lie below the head.

    Source:
        Baran and Wu, Network reconfiguration in distribution systems for loss reduction and load balancing, 1989: the
        linear estimate of voltages along a radial feeder.
    """
    p, q = (np.array([getattr(bus, name) for bus in buses]) for name in ("kw", "kvar"))
    for place in range(len(buses) - 1, 0, -1):  # each bus stands after the one above it
        p[buses[place].parent] += p[place]
        q[buses[place].parent] += q[place]
    below = np.zeros(len(buses))
    kv_phase = kv / np.sqrt(3.0)
    for place, bus in enumerate(buses[1:], start=1):
        amps = float(np.hypot(p[place], q[place]).max()) / kv_phase
        bus.conductor = next((each for each in CONDUCTORS if each.amps > 1.5 * amps), CONDUCTORS[-1])
        bus.length_km = float(rng.lognormal(0.0, 0.5))
        r, x = _self_impedance(bus.conductor) if len(bus.phases) == 1 else (bus.conductor.r1, bus.conductor.x1)
        fall = (r * p[place] + x * q[place]).sum() / len(bus.phases) * bus.length_km / (1000.0 * kv_phase**2)
        below[place] = below[bus.parent] + fall
    for bus in buses:
        bus.length_km = round(bus.length_km * drop_pu / float(below.max()), 4)


def _self_impedance(conductor: Conductor) -> tuple[float, float]:
    return (2.0 * conductor.r1 + conductor.r0) / 3.0, (2.0 * conductor.x1 + conductor.x0) / 3.0


def write_feeder(folder: Path, seed: int) -> Path:
    """Write the feeder of a seed into a folder, which is made, and return its master file.

    Args:
        folder: Where ``Master.dss`` and ``BusCoords.csv`` go.
        seed: Decides everything.
    """
    rng = np.random.default_rng(seed)
    n_nodes = int(np.exp(rng.uniform(np.log(LEAST_NODES), np.log(MOST_NODES + 1))))
    kv, least_kw, most_kw = LEVELS[int(rng.integers(len(LEVELS)))]
    buses = draw_tree(rng, n_nodes)
    size = (n_nodes / MOST_NODES) ** 0.5
    draw_demand(rng, buses, least_kw + (most_kw - least_kw) * size * float(rng.uniform(0.6, 1.0)))
    size_lines(rng, buses, kv, float(rng.uniform(LEAST_DROP, MOST_DROP)))
    name = f"made_{seed}"
    lines = [f"! {name}: {n_nodes} nodes, {kv} kV, {len(buses)} buses; written by scripts/make_feeders.py, no real one"]
    lines += [*_head(rng, name, kv, buses), *_lines(buses), *_loads(buses, kv), *_equipment(rng, buses, kv)]
    lines += ["", f"Set VoltageBases=[115, {kv}]", "CalcVoltageBases", "BusCoords BusCoords.csv"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Master.dss").write_text("\n".join(lines) + "\n")
    coordinates = [("sourcebus", -2.0, 0.0), ("sub", -1.0, 0.0), *((f"n{i}", *bus.xy) for i, bus in enumerate(buses))]
    (folder / "BusCoords.csv").write_text("".join(f"{bus}, {x}, {y}\n" for bus, x, y in coordinates))
    return folder / "Master.dss"


def _head(rng: np.random.Generator, name: str, kv: float, buses: Sequence[Bus]) -> Iterator[str]:
    """Yield circuit, substation and regulators; the substation carries half as much again as is asked of it."""
    kva = 1.5 * float(np.hypot(sum(b.kw.sum() for b in buses), sum(b.kvar.sum() for b in buses)))
    kva, vreg, neutral = round(kva, -2) + 100.0, round(float(rng.uniform(120.5, 123.5)), 1), round(kv / 3.0**0.5, 4)
    yield f"New Circuit.{name} Bus1=sourcebus Phases=3 BasekV=115 pu=1.0 Angle=30 MVAsc3=2000 MVAsc1=2100\n"
    yield (
        f"New Transformer.sub Phases=3 Windings=2 Buses=[sourcebus, sub] Conns=[delta, wye] kVs=[115, {kv}] "
        f"kVAs=[{kva}, {kva}] XHL=7 %Rs=[0.4, 0.4]"
    )
    ratio = round(neutral * 1000.0 / 120.0, 3)
    for phase in (1, 2, 3):
        yield (
            f"New Transformer.reg{phase} Phases=1 Windings=2 Buses=[sub.{phase}, n0.{phase}] Conns=[wye, wye] "
            f"kVs=[{neutral}, {neutral}] kVAs=[{round(kva / 3.0)}, {round(kva / 3.0)}] XHL=0.01 %LoadLoss=0.01 Bank=reg"
        )
        yield f"New RegControl.reg{phase} Transformer=reg{phase} Winding=2 VReg={vreg} Band=2 PTRatio={ratio}"


def _lines(buses: Sequence[Bus]) -> Iterator[str]:
    """Yield line codes, a lateral's of one phase, and lines."""
    used = {(bus.conductor, len(bus.phases)) for bus in buses[1:]}
    yield ""
    for c, phases in sorted(used):
        code = f"New LineCode.{c.name}_{phases}ph NPhases={phases} Units=km NormAmps={c.amps}"
        if phases == 3:
            yield f"{code} R1={c.r1} X1={c.x1} R0={c.r0} X0={c.x0}"
        else:
            yield "{} RMatrix=[{:.4f}] XMatrix=[{:.4f}]".format(code, *_self_impedance(c))
    yield ""
    for place, bus in enumerate(buses[1:], start=1):
        nodes = "".join(f".{phase}" for phase in bus.phases)
        yield (
            f"New Line.l{place} Phases={len(bus.phases)} Bus1=n{bus.parent}{nodes} Bus2=n{place}{nodes} "
            f"LineCode={bus.conductor.name}_{len(bus.phases)}ph Length={bus.length_km} Units=km"
        )


def _loads(buses: Sequence[Bus], kv: float) -> Iterator[str]:
    """Yield shapes and loads: one a phase, of constant power at homes and in industry, else of constant current."""
    yield ""
    for shape, values in SHAPES.items():
        yield f"New LoadShape.{shape} NPts=24 Interval=1 Mult=[{' '.join(f'{value:g}' for value in values)}]"
    yield ""
    neutral = round(kv / 3.0**0.5, 4)
    for place, bus in enumerate(buses):
        for phase in (phase for phase in bus.phases if bus.kw[phase - 1] > 0.0):
            model = 5 if bus.shape == "commercial" else 1
            yield (
                f"New Load.s{place}{'abc'[phase - 1]} Bus1=n{place}.{phase} Phases=1 Conn=wye Model={model} "
                f"kV={neutral} kW={bus.kw[phase - 1]:g} PF={bus.pf:g} Vminpu=0.8 Vmaxpu=1.2 Daily={bus.shape}"
            )


def _equipment(rng: np.random.Generator, buses: Sequence[Bus], kv: float) -> Iterator[str]:
    """Yield capacitors, PV and a battery at three-phase buses, in parts of the feeder's demand."""
    total_kw, total_kvar = (sum(float(getattr(bus, name).sum()) for bus in buses) for name in ("kw", "kvar"))
    three = [place for place, bus in enumerate(buses) if len(bus.phases) == 3 and place] or [0]
    yield ""
    n_capacitors = 1 + (len(three) > 8)
    for number in range(1, n_capacitors + 1):
        kvar = round(total_kvar * float(rng.uniform(0.3, 0.5)) / n_capacitors, -1) + 10.0
        yield f"New Capacitor.cap{number} Bus1=n{rng.choice(three)} Phases=3 kvar={kvar:g} kV={kv}"
    for number in range(1, 2 + (len(three) > 4)):
        kw = round(total_kw * float(rng.uniform(0.1, 0.25)), -1) + 10.0
        yield (
            f"New PVSystem.pv{number} Bus1=n{rng.choice(three)} Phases=3 kV={kv} kVA={1.1 * kw:g} Pmpp={kw:g} "
            "irradiance=1 PF=1"
        )
    kw = round(total_kw * float(rng.uniform(0.05, 0.15)), -1) + 10.0
    yield (
        f"New Storage.battery Bus1=n{rng.choice(three)} Phases=3 kV={kv} kWrated={kw:g} kVA={1.2 * kw:g} "
        f"kWhrated={3.0 * kw:g} %stored=50 State=Idling"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the feeders of some seeds, a folder each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder that the folders go into")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    asked = parser.parse_args(arguments)
    if min(asked.seeds) < 0:
        parser.error(f"--seeds: {min(asked.seeds)} is below 0")
    for seed in asked.seeds:
        print(write_feeder(asked.out / f"made_{seed}", seed))


if __name__ == "__main__":
    main()
