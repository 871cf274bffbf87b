"""Neutrals are found by what they are, and power in star does not go where nothing leads to ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.check.inspection import inspect_feeder
from powergrid.grid.circuit.circuit import Circuit, Injection
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.feeder.network import Network

STREET = """
New Circuit.street bus1=mv basekv=11 pu=1.02 mvasc3=200 mvasc1=150
New Transformer.tr phases=3 windings=2 buses=[mv lv.1.2.3.{n}] conns=[delta wye] kvs=[11 .4] kvas=[250 250] xhl=4
New Reactor.earth bus1=lv.{n} phases=1 r=1 x=0
New LineCode.w4 nphases=4 units=km normamps=200
~ rmatrix=[.45 | .05 .45 | .05 .05 .45 | .05 .05 .05 .9] xmatrix=[.35 | .27 .35 | .25 .27 .35 | .27 .25 .27 .36]
New Line.m1 phases=4 bus1=lv.1.2.3.{n} bus2=p1.1.2.3.{n} linecode=w4 length=.2 units=km
New Line.m2 phases=4 bus1=p1.1.2.3.{n} bus2=p2.1.2.3.{n} linecode=w4 length=.2 units=km
New Load.h1 phases=1 bus1=p1.1.{n} kv=.23 kw={kw} pf=.97
New Load.h2 phases=1 bus1=p2.1.{n} kv=.23 kw={kw} pf=.97
New Load.h3 phases=1 bus1=p2.2.{n} kv=.23 kw=2 pf=.97
Set VoltageBases=[11 .4]
"""
#: Six wires to a bus, its second circuit on nodes 4 to 6.
DOUBLE = """
New Circuit.six bus1=a basekv=12.47
New Line.one bus1=a.1.2.3 bus2=b.1.2.3 r1=.1 x1=.2 length=1 normamps=300
New Line.two bus1=a.1.2.3 bus2=b.4.5.6 r1=.1 x1=.2 length=1 normamps=300
New Load.x bus1=b.1 phases=1 kv=7.2 kw=300
New Load.y bus1=b.5 phases=1 kv=7.2 kw=300
Set VoltageBases=[12.47]
"""
#: A centre tap of 120/240 V, its neutral a conductor of its own.
CENTRE_TAP = """
New Circuit.tap bus1=a basekv=12.47
New Transformer.t phases=1 windings=3 buses=(a.1 x.1.{n} x.{n}.2) kvs=(7.2 .12 .12) kvas=(25 25 25) xhl=2 xht=2 xlt=1
New Reactor.earth bus1=x.{n} phases=1 r=5 x=0
New Line.drop phases=3 bus1=x.1.2.{n} bus2=h.1.2.{n} r1=.2 x1=.05 r0=.2 x0=.05 c1=0 c0=0 length=.05 units=km
New Load.lamps phases=1 bus1=h.1.{n} kv=.12 kw=5
New Load.stove phases=1 bus1=h.1.2 kv=.24 kw=4
Set VoltageBases=[12.47 .208]
"""
GROUNDED_TAP = """
New Circuit.tap bus1=a basekv=12.47
New Transformer.t phases=1 windings=3 buses=(a.1 x.1.0 x.0.2) kvs=(7.2 .12 .12) kvas=(25 25 25) xhl=2 xht=2 xlt=1
New Load.lamps phases=1 bus1=x.1 kv=.12 kw=5
Set VoltageBases=[12.47 .208]
"""
#: A source whose star point is the fourth wire.
FOUR_WIRES = """
New Circuit.four bus1=a.1.2.3 bus2=a.4.4.4 basekv=0.4
New Reactor.earth bus1=a.4 phases=1 r=1 x=0
New Line.ab phases=4 bus1=a.1.2.3.4 bus2=b.1.2.3.4 r1=.1 x1=.1 r0=.2 x0=.2 c1=0 c0=0 length=1 normamps=300
New Load.x bus1=b.1.4 phases=1 kv=.23 kw=5
Set VoltageBases=[0.4]
"""
#: Phase 3 is dead behind an open switch, and no neutral.
SWITCHED = """
New Circuit.s bus1=a basekv=12.47
New Line.ab phases=2 bus1=a.1.2 bus2=b.1.2 r1=.1 x1=.2 length=1 normamps=300
New Line.sw phases=1 bus1=a.3 bus2=b.3 switch=yes normamps=300
New Load.x bus1=b.1 phases=1 kv=7.2 kw=300
Open Line.sw 1
Set VoltageBases=[12.47]
"""
#: Behind a delta winding; its star is tied to the fourth wire, which an earth holds or not.
DELTA = """
New Circuit.plant basekv=12.47
New Line.l bus1=sourcebus bus2=b r1=0.1 x1=0.2 r0=0.3 x0=0.6 length=1 normamps=300
New Load.town bus1=b kV=12.47 kW=500 pf=0.95
New Transformer.t buses=(b lv) conns=(wye delta) kvs=(12.47 0.48) kvas=(500 500) xhl=5.75
New Transformer.u buses=(b w.1.2.3.4) conns=(wye wye) kvs=(12.47 0.48) kvas=(500 500) xhl=5.75
{earth}
New Storage.s bus1=lv phases=3 kv=0.48 kWrated=200 kWhrated=800 kva=250
Set VoltageBases=[12.47 0.48]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "Master.dss"
    path.write_text(f"Clear\n{text}\nCalcVoltageBases\n")
    return path


def network_of(path: Path) -> Network:
    circuit = Circuit(read_feeder(path))
    circuit.close()
    return circuit.network


@pytest.mark.parametrize("number", [4, 7])
@pytest.mark.parametrize("kw", [1, 22])
def test_neutral_of_a_four_wire_street_is_found_however_its_houses_are_spread(
    tmp_path: Path, kw: int, number: int
) -> None:
    path = write(tmp_path, STREET.format(kw=kw, n=number))
    network = network_of(path)
    assert {network.nodes[i] for i in network.neutrals} == {f"{bus}.{number}" for bus in ("lv", "p1", "p2")}
    report = inspect_feeder(path)
    assert not report.of_code("base-kv")
    assert report.snapshot is None or report.snapshot.v_min_node != f"p2.{number}"


@pytest.mark.parametrize("number", [3, 4])
def test_neutral_of_a_centre_tap_may_have_any_number(tmp_path: Path, number: int) -> None:
    network = network_of(write(tmp_path, CENTRE_TAP.format(n=number)))
    assert {network.nodes[i] for i in network.neutrals} == {f"x.{number}", f"h.{number}"}
    assert {node for node, phase in zip(network.nodes, network.is_phase, strict=True) if phase} == {
        *("a.1", "a.2", "a.3"), *(f"{bus}.{leg}" for bus in "xh" for leg in (1, 2)),
    }  # fmt: skip


def test_star_point_of_a_source_is_a_neutral(tmp_path: Path) -> None:
    network = network_of(write(tmp_path, FOUR_WIRES))
    assert {network.nodes[i] for i in network.neutrals} == {"a.4", "b.4"}


@pytest.mark.parametrize("text", [DOUBLE, GROUNDED_TAP, SWITCHED])
def test_phases_numbered_on_legs_and_dead_phases_are_no_neutrals(tmp_path: Path, text: str) -> None:
    assert not len(network_of(write(tmp_path, text)).neutrals)


def test_nodes_without_a_path_to_ground_are_found(tmp_path: Path) -> None:
    loose = network_of(write(tmp_path, DELTA.format(earth="")))
    assert {loose.nodes[i] for i in loose.floating} == {f"lv.{i}" for i in (1, 2, 3)} | {f"w.{i}" for i in (1, 2, 3, 4)}
    held = network_of(write(tmp_path, DELTA.format(earth="New Reactor.e bus1=w.4 phases=1 r=1 x=0")))
    assert {held.nodes[i] for i in held.floating} == {f"lv.{i}" for i in (1, 2, 3)}


@pytest.mark.parametrize(
    "injection",
    [Injection("s", element="Storage.s"), Injection("s", bus="lv"), Injection("s", bus="lv", phases=(1, 2))],
)
def test_device_in_star_behind_a_delta_is_played_in_delta(tmp_path: Path, injection: Injection) -> None:
    text = DELTA.format(earth="") if injection.element else DELTA.format(earth="").replace("New Storage.s", "! ")
    circuit = Circuit(read_feeder(write(tmp_path, text)), (injection,), tolerance=1e-9)
    iterations = []
    for p_kw, q_kvar in ((200.0, 0.0), (0.0, -150.0), (-180.0, 90.0)):
        circuit.write_demand(circuit.network.loads.kw, circuit.network.loads.kvar)
        circuit.write_injections(np.array([p_kw]), np.array([q_kvar]))
        assert circuit.run()  # at the first go
        assert np.abs(circuit.v).max() < 1.2 * 7200.0
        iterations.append(circuit.engine.iterations)
        circuit.accept()
    assert max(iterations) < 20
    circuit.close()


def test_check_says_which_stars_are_played_in_delta(tmp_path: Path) -> None:
    (found,) = inspect_feeder(write(tmp_path, DELTA.format(earth=""))).of_code("played-otherwise")
    assert "storage.s is in star at bus 'lv', from which nothing leads to ground" in found.message
