"""Days written as OpenDSS scripts: the engine alone gives the voltages that the environment saw."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from powergrid.evaluation.opendss import export_day

#: What a model may have that follows its own shapes or controls, with what records it.
OWN = """Clear
New Circuit.own basekv=12.47 pu=1.02 bus1=src
New LoadShape.work npts=24 interval=1 mult=[0.3 0.3 0.3 0.3 0.4 0.5 0.7 0.9 1 1 1 1 1 1 1 0.9 0.8 0.7 0.6 0.5 0.4 0.4 0.3 0.3]
New LoadShape.sun npts=24 interval=1 mult=[0 0 0 0 0 0 0.1 0.3 0.5 0.7 0.9 1 1 0.9 0.7 0.5 0.3 0.1 0 0 0 0 0 0]
New LoadShape.feed npts=24 interval=1 mult=[1 1.01 1.02 1.03 1 1 1 1 1 0.99 0.98 1 1 1 1 1 1.01 1.02 1 1 1 1 1 1]
New LoadShape.store npts=24 interval=1 mult=[-1 -1 -1 0 0 0 0 0.2 0.2 0 0 0 -0.5 -0.5 0 0 0 1 1 1 0 0 0 0]
New TShape.warm npts=24 interval=1 temp=[10 10 10 10 12 15 20 25 30 35 40 42 44 44 40 35 30 25 20 18 15 12 10 10]
New XYCurve.pt npts=4 xarray=[0 25 75 100] yarray=[1.2 1.0 0.8 0.6]
New XYCurve.eff npts=4 xarray=[0.1 0.2 0.4 1.0] yarray=[0.86 0.9 0.93 0.97]
New XYCurve.vv npts=4 xarray=[0.5 0.97 1.03 1.5] yarray=[1 1 -1 -1]
New Transformer.sub phases=3 windings=2 buses=(src head) conns=(delta wye) kvs=(12.47 4.16) kvas=(5000 5000) xhl=6
New RegControl.sub transformer=sub winding=2 vreg=122 band=2 ptratio=20
New Line.one bus1=head bus2=mid length=1 units=km r1=0.3 x1=0.6 r0=0.6 x0=1.5
New "Line.t wo" bus1=mid bus2=end length=1 units=km r1=0.3 x1=0.6 r0=0.6 x0=1.5
New Line.tie bus1=mid bus2=far switch=yes
New Line.lead bus1=far bus2=last length=0.5 units=km r1=0.3 x1=0.6 r0=0.6 x0=1.5
New Load.a bus1=mid phases=3 kv=4.16 kw=900 kvar=400 daily=work
New Load.b bus1=end.1 phases=1 kv=2.4 kw=120 pf=0.95 model=2 daily=work
New Load.c bus1=last phases=3 kv=4.16 kw=300 kvar=-20 status=fixed
New Load.z bus1=end.2 phases=1 kv=2.4 kw=50 kvar=0 model=5
New Capacitor.bank bus1=end phases=3 kv=4.16 kvar=[200 200] numsteps=2
New Capacitor.matrix bus1=last phases=3 kv=4.16 cmatrix=[9|0 9|0 0 9]
New Capacitor.late bus1=mid phases=3 kv=4.16 kvar=[60 60] numsteps=2
New Reactor.matrix bus1=last bus2=tip phases=3 rmatrix=[.1|0 .1|0 0 .1] xmatrix=[.2|0 .2|0 0 .2]
New Load.tip bus1=tip phases=3 kv=4.16 kw=30 kvar=10
New Sensor.s element=Line.one terminal=1
New CapControl.bank element=Line.one capacitor=bank type=voltage ptratio=20 on=119 off=124 delay=1
New PVSystem.roof bus1=end phases=3 kv=4.16 kva=500 pmpp=450 irradiance=0.9 daily=sun temperature=25 tdaily=warm p-tcurve=pt effcurve=eff
New PVSystem.lone bus1=last phases=3 kv=4.16 kva=200 pmpp=180 daily=sun
New Storage.store bus1=end phases=3 kv=4.16 kwrated=200 kwhrated=500 %stored=40 dispmode=follow daily=store
New Generator.chp bus1=mid phases=3 kv=4.16 kw=150 kvar=30 daily=work
New Line.join bus1=last bus2=tail length=1 units=km r1=2 x1=4
New Vsource.second bus1=tail basekv=4.16 pu=1.0 daily=feed
New InvControl.vv derlist=[PVSystem.lone] mode=voltvar vvc_curve1=vv
New Monitor.head element=Line.one terminal=1 mode=0
New Monitor.power element=Line.one
~ terminal=1 mode=1 ppolar=no
New Monitor.lost element=Line.nowhere terminal=1 mode=0
New EnergyMeter.m element=Line.one terminal=1
Set VoltageBases=[12.47 4.16]
CalcVoltageBases
Solve
"""  # noqa: E501


#: A line opens and closes, a fault strikes and is cleared, a device trips, demand rises.
EVENTS = {
    "storm": {"kind": "line_outage", "element": "Line.692675", "at_hour": 12, "duration_hours": 2},
    "short": {"kind": "fault", "bus": "652", "r_ohm": 0.5, "at_hour": 18, "clearing_steps": 1, "repair_steps": 4},
    "trip": {"kind": "generator_outage", "device": "pv_1", "at_hour": 10, "duration_hours": 1},
    "match": {"kind": "load_step", "loads": "67*", "factor": 1.2, "at_hour": 20, "duration_hours": 2},
}


def test_exported_day_with_events_alone_gives_voltages_seen(tmp_path: Path) -> None:
    result = export_day({"env_name": "ieee13_mg", "events": EVENTS}, "random", None, tmp_path, verify=True)
    assert result.difference is not None
    assert result.difference.largest_pu < 1e-6
    assert "Close Fault" in (tmp_path / "Day.dss").read_text().replace('"', "")


@pytest.mark.parametrize(
    ("scenario", "policy"),
    [
        ("ieee13_mg", "random"),
        ("ieee123_mg", "rule_based"),
        ("ieee34_voltvar", "random"),
        ("ieee34_ieee13", "random"),
        ("ieee13_voltvar", "native"),
    ],
)
def test_exported_day_alone_gives_voltages_seen(scenario: str, policy: str, tmp_path: Path) -> None:
    result = export_day({"env_name": scenario}, policy, None, tmp_path, verify=True)
    assert result.difference is not None
    assert result.difference.n_steps == len(result.day.v_pu)
    assert result.difference.largest_pu < 1e-6


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("own") / "own.dss"
    file.write_text(OWN)
    return file


@pytest.mark.parametrize(("policy", "source"), [("native", "builtin"), ("random", "loadshapes")])
def test_exported_day_of_own_shapes_and_controls_gives_voltages_seen(
    policy: str, source: str, own_model: Path, tmp_path: Path
) -> None:
    config = {"env_name": str(own_model), "profiles": {"source": source}}
    result = export_day(config, policy, None, tmp_path, verify=True, monitors=True)
    assert result.difference is not None
    assert result.difference.largest_pu < 1e-6
    power = pd.read_csv(tmp_path / "monitor_power.csv")
    assert len(power) == 96
    assert power["hour"].iloc[-1] == 24
    meter = pd.read_csv(tmp_path / "meter_m.csv")
    # The meter's energy is that of the monitor, phase by phase, a quarter of an hour each.
    kwh = power[[c for c in power if c.startswith("P")]].sum(axis=1).sum() * 0.25
    assert meter["kWh"].iloc[-1] == pytest.approx(kwh, rel=1e-5)
    assert any("Line.nowhere" in note for note in result.notes)


#: Plays a folder's master file in EPRI's engine, and writes the voltages after each step in the order of the nodes.
EPRI_PROGRAM = """
import sys
from pathlib import Path
import numpy as np
import py_dss_interface

engine, folder, volts = py_dss_interface.DSS(), Path(sys.argv[1]), []
def play(file):
    for line in file.read_text().splitlines():
        if line.startswith("Redirect Day"):
            play(folder / "Day.dss")
        elif not line.startswith(("!", "Export")):
            engine.text(line.replace("Redirect ", f"Redirect {folder}/"))
            if line == "Solve":
                volts.append(np.abs(np.array(engine.circuit.y_node_varray).reshape(-1, 2) @ np.array([1, 1j])))
play(folder / "Master.dss")
np.savez(sys.argv[2], nodes=np.array([name.lower() for name in engine.circuit.y_node_order]), v=np.array(volts))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("py_dss_interface") is None, reason="needs EPRI's engine, py-dss-interface"
)
def test_exported_day_on_epri_engine_gives_voltages_seen(tmp_path: Path) -> None:
    folder, answer = tmp_path / "day", tmp_path / "answer.npz"
    day = export_day({"env_name": "ieee34_ieee13"}, "rule_based", None, folder).day
    # A process of its own: EPRI's engine prints on stdout, changes directory and may take the interpreter with it.
    subprocess.run(
        [sys.executable, "-c", EPRI_PROGRAM, str(folder), str(answer)], cwd=tmp_path, check=True, capture_output=True,
        timeout=120,
    )  # fmt: skip
    with np.load(answer) as arrays:
        place = {name: i for i, name in enumerate(arrays["nodes"].tolist())}
        v_pu = arrays["v"][:, [place[name] for name in day.nodes]] / day.v_base
    assert v_pu == pytest.approx(day.v_pu, abs=1e-6)
