"""What moves each element: the same in check, in describe, and in what is played."""

from __future__ import annotations

from pathlib import Path

import pytest

import powergrid
from powergrid.check import check_feeder
from powergrid.scenario.as_played import Played, summarise_played

HEAD = """Clear
New Circuit.told basekv=12.47 pu=1.0 mvasc3=2000 mvasc1=2100
New LoadShape.day npts=4 interval=6 mult=[.5 1 1.2 .7]
New Line.a bus1=sourcebus bus2=b r1=.01 x1=.01 r0=.01 x0=.01 c1=0 c0=0 length=1
New Line.sw bus1=b bus2=c switch=yes
New Transformer.t buses=[b r] conns=[wye wye] kvs=[12.47 12.47] kvas=[2000 2000] xhl=1
New RegControl.free transformer=t winding=2 vreg=122 band=2 ptratio=60
New Transformer.u buses=[b s] conns=[wye wye] kvs=[12.47 12.47] kvas=[2000 2000] xhl=1
New RegControl.still transformer=u winding=2 vreg=122 band=2 ptratio=60 maxtapchange=0
New Capacitor.bank bus1=c kv=12.47 kvar=50
New Generator.steady bus1=b kv=12.47 kw=40 status=fixed
"""
LOADS = """New Load.shaped bus1=c kv=12.47 kw=100 kvar=30 daily=day
New Load.fixed bus1=r kv=12.47 kw=70 kvar=30 daily=day status=fixed
New Load.bare bus1=s kv=12.47 kw=60 kvar=30
"""
TAIL = "Set VoltageBases=[12.47]\nCalcVoltageBases\n"


def write(folder: Path, body: str) -> Path:
    master = folder / "told.dss"
    master.write_text(HEAD + body + TAIL)
    return master


def test_describe_says_what_moves_each_element_and_its_peak(tmp_path: Path) -> None:
    env = powergrid.make(write(tmp_path, LOADS))
    frame = env.describe().as_played.set_index("element")
    assert frame.loc["Load.shaped"].tolist() == ["shape", "LoadShape day", pytest.approx(120.0)]
    assert frame.loc["Load.fixed"].tolist() == ["nothing", "Status=fixed", pytest.approx(70.0)]
    assert frame.loc["Load.bare"].tolist() == ["nothing", "no LoadShape", pytest.approx(60.0)]
    assert frame.loc["RegControl.free", "moved_by"] == "agent"
    assert frame.loc["Capacitor.bank", "moved_by"] == "agent"
    assert frame.loc["RegControl.still", "moved_by"] == "nothing"
    assert frame.loc["RegControl.still", "by"].startswith("RegControl.still cannot move: ")
    env.reset(seed=0)
    names = env.task.simulation.network.loads.names
    most = env.task.simulation.day_load_kw[0].max(axis=0)
    for name, kw in zip(names, most, strict=True):
        assert kw <= frame.loc[f"Load.{name}", "peak_kw"] + 1e-9
    env.close()


def test_own_controls_and_frozen_devices_are_told_as_such(tmp_path: Path) -> None:
    keys = {"devices.reg_free.control": "opendss"}
    env = powergrid.make(write(tmp_path, LOADS), native_controls=True, **keys)
    frame = env.describe().as_played.set_index("element")
    assert frame.loc["RegControl.free"].tolist()[:2] == ["own control", "as device reg_free"]
    env.close()


def test_check_tells_the_same_as_data_and_in_a_few_lines(tmp_path: Path) -> None:
    many = "".join(f"New Load.m{i} bus1=c kv=12.47 kw=1 daily=day\n" for i in range(40))
    report = check_feeder(write(tmp_path, LOADS + many))
    assert not report.errors
    told = {row[0]: tuple(row[1:3]) for row in report.as_dict()["as_played"]}
    assert told["Load.m7"] == ("shape", "LoadShape day")
    lines = summarise_played([Played(*row) for row in report.as_played])
    assert lines[0] == "41 Load by shape: LoadShape day (41); peaks add up to 168 kW"
    assert len(lines) < 10


def test_loads_without_shapes_are_told_their_series(tmp_path: Path) -> None:
    env = powergrid.make(write(tmp_path, "New Load.bare bus1=s kv=12.47 kw=60 kvar=30\n"))
    frame = env.describe().as_played.set_index("element")
    assert frame.loc["Load.bare", "moved_by"] == "profile"
    assert frame.loc["Load.bare", "by"].startswith("demand ")
    env.close()


def test_panels_and_voltage_sources_are_told_by_their_shapes(tmp_path: Path) -> None:
    panel = "New PVSystem.roof bus1=c kv=12.47 Pmpp=200 kVA=220 %Pmpp=50 irradiance=.9 daily=day\n"
    source = "Edit Vsource.source daily=day\n"
    env = powergrid.make(write(tmp_path, LOADS + panel + source), discover={"pv": False})
    frame = env.describe().as_played.set_index("element")
    assert frame.loc["PVSystem.roof"].tolist() == ["shape", "LoadShape day", pytest.approx(200 * 0.5 * 0.9 * 1.2)]
    assert frame.loc["Vsource.source"].tolist()[:2] == ["shape", "LoadShape day"]
    env.close()


def test_peaks_of_generators_mind_the_circuits_multiplier(tmp_path: Path) -> None:
    own = "New Generator.sunny bus1=c kv=12.47 kw=100 daily=day\nNew Generator.flat bus1=c kv=12.47 kw=30\n"
    env = powergrid.make(write(tmp_path, LOADS + own + "Set GenMult=0.5\n"), discover={"generators": False})
    frame = env.describe().as_played.set_index("element")
    circuit = env.task.simulation.circuits[0]
    env.reset(seed=0, options={"day": 0})
    most = dict.fromkeys(("sunny", "flat", "steady"), 0.0)
    for _ in range(96):
        env.task.simulation.step(env.task.simulation.neutral())
        for name in most:
            circuit.engine.direct.Circuit.SetActiveElement(f"Generator.{name}")
            most[name] = max(most[name], -sum(circuit.engine.direct.CktElement.Powers()[0:6:2]))
    env.close()
    for name, kw in most.items():
        assert frame.loc[f"Generator.{name}", "peak_kw"] == pytest.approx(kw, rel=1e-4), name
