"""What models leave out: base voltages, levels, an order of their commands; and meters that nobody reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.grid.circuit.circuit import Circuit, network_of
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.compile import compile_feeder
from powergrid.grid.feeder.feeder import read_feeder

#: Three levels: 69 and 12.47 kV line to line, 120 V on both sides of a centre tap.
HEAD = """New Circuit.c basekv=69 pu=1.02 bus1=s
New Transformer.sub buses=(s a) conns=(delta wye) kvs=(69 12.47) kvas=(5000 5000) xhl=6
New Line.l bus1=a bus2=b r1=.2 x1=.4 r0=.5 x0=1 length=1
New Load.x bus1=b kV=12.47 kW=900
"""
LOW = """New Transformer.ct phases=1 windings=3 buses=(b.1 h.1.0 h.0.2) kvs=(7.2 .12 .12) kvas=(50 50 50)
New Load.h bus1=h.1.2 phases=1 kv=.24 kw=20
"""
BASES = "Set VoltageBases=[69 12.47 .208]\n"
CALC = "CalcVoltageBases\n"
AS_IT_SHOULD = HEAD + LOW + BASES + CALC


def look(folder: Path, text: str) -> tuple[dict[str, float], dict[str, float], tuple[str, ...]]:
    """Return the base and the voltage of each node [V], and the notes."""
    master = folder / "Master.dss"
    master.write_text(text)
    circuit = Circuit(read_feeder(master), tolerance=1e-9)
    try:
        network = circuit.network
        return (
            dict(zip(network.nodes, network.v_base.tolist(), strict=True)),
            dict(zip(network.nodes, np.abs(circuit.v[1:]).tolist(), strict=True)),
            network.notes,
        )
    finally:
        circuit.close()


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (HEAD + BASES + CALC + LOW, "h defined after CalcVoltageBases"),
        (HEAD + "Set VoltageBases=[69 12.47]\n" + CALC + LOW, "0.2078 kV from sources and transformers"),
        (HEAD + LOW + BASES, "no CalcVoltageBases after"),
        (HEAD + LOW, "no VoltageBases: base voltages found anew, 69, 12.47, 0.2078 kV from"),
        (HEAD + LOW + CALC, "no VoltageBases"),
        (HEAD + LOW + CALC + BASES, "after the last VoltageBases"),
        (AS_IT_SHOULD, ""),
    ],
)
def test_base_voltages_are_found_in_any_order_of_the_commands_and_told(text: str, note: str, tmp_path: Path) -> None:
    bases, volts, notes = look(tmp_path, text)
    expected, right, none = look(tmp_path, AS_IT_SHOULD)
    assert bases == pytest.approx(expected, rel=2e-3)
    assert volts == pytest.approx(right, rel=1e-6)
    assert none == ()
    assert [note in each for each in notes] == ([True] if note else [])
    assert network_of(read_feeder(tmp_path / "Master.dss")).notes == ()


def test_notes_come_with_the_network_from_the_cache(tmp_path: Path) -> None:
    _, _, notes = look(tmp_path, HEAD + LOW)
    assert network_of(read_feeder(tmp_path / "Master.dss")).notes == notes != ()


def test_base_that_a_model_sets_stays_when_others_are_found(tmp_path: Path) -> None:
    bases, _, notes = look(tmp_path, HEAD + BASES + CALC + "SetkVBase bus=b kvll=13.2\n" + LOW)
    assert bases["b.1"] == pytest.approx(13200 / 3**0.5)
    assert bases["a.1"] == pytest.approx(12470 / 3**0.5)
    assert bases["h.1"] == pytest.approx(120, rel=2e-3)
    assert len(notes) == 1


def test_single_phase_source_gives_the_level_of_its_own_bus(tmp_path: Path) -> None:
    text = "New Circuit.c basekv=7.2 phases=1 bus1=s.1\nNew Line.l phases=1 bus1=s.1 bus2=b.1 r1=.1 x1=.1 length=1\n"
    bases, volts, _ = look(tmp_path, text + "New Load.x phases=1 bus1=b.1 kv=7.2 kw=90\n")
    assert bases == pytest.approx(dict.fromkeys(("s.1", "b.1"), 7200.0))
    assert volts["b.1"] == pytest.approx(7200, rel=0.02)


def test_matrix_of_new_nodes_is_built_with_room_for_their_voltages(tmp_path: Path) -> None:
    (tmp_path / "Master.dss").write_text(HEAD + BASES + CALC)
    many = "".join(f"New Line.m{i} bus1=b bus2=m{i} length=1\n" for i in range(200))
    for _ in range(3):  # without, what lay behind the voltages is overwritten: the process ends here or in a close
        engine = Engine()
        compile_feeder(read_feeder(tmp_path / "Master.dss"), engine)
        for line in many.splitlines():
            engine.command(line)
        engine.build_y(voltages=True)
        assert len(engine.node_names()) == 9 + 600
        assert engine.solve()
        engine.close()


RECORDERS = """New Monitor.m element=Line.l terminal=1 mode=1
New Monitor.m element=Line.l terminal=2
~ mode=0
Monitor.m.mode=1
New EnergyMeter.e element=Line.nosuch terminal=1
Edit EnergyMeter.e terminal=2
Disable Monitor.m
New Object=EnergyMeter.e element=Line.l
"""


def test_meters_and_monitors_are_left_out_and_stop_nothing(tmp_path: Path) -> None:
    bases, volts, _ = look(
        tmp_path, HEAD + LOW + RECORDERS + "New Capacitor.c bus1=b kv=12.47 kvar=90\n" + BASES + CALC
    )
    alone, right, _ = look(tmp_path, HEAD + LOW + "New Capacitor.c bus1=b kv=12.47 kvar=90\n" + BASES + CALC)
    assert (bases, volts) == (alone, right)


def test_meters_stay_where_loads_are_allocated_by_them(tmp_path: Path) -> None:
    meter = "New EnergyMeter.e element=Line.l terminal=1 peakcurrent=[30 30 30]\n"
    text = HEAD.replace("kW=900", "xfkva=1000") + "New Load.y bus1=b kv=12.47 xfkva=500\n" + meter + BASES + CALC
    (tmp_path / "Master.dss").write_text(text + "AllocateLoads\n")
    kw = network_of(read_feeder(tmp_path / "Master.dss")).loads.kw
    assert kw[0] == pytest.approx(2 * kw[1])
    assert 500.0 < kw.sum() < 700.0  # 30 A in each phase, not the half of what the transformers are for
