"""Elements added to a feeder and values changed, against the same written by hand and OpenDSS's own circuit."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.errors import FeederError, ScenarioError
from powergrid.grid.circuit.circuit import Circuit, network_of
from powergrid.grid.feeder import Feeder, read_feeder
from powergrid.grid.feeder.changes import IEEE1547_B, FeederChanges, change_feeder
from powergrid.scenario import load_scenario

MASTER = """
clear
new circuit.small basekv=12.47 pu=1.02 bus1=head mvasc3=200 mvasc1=180
new wiredata.w gmrac=0.01 gmrunits=m rac=0.3 runits=km radunits=m diam=0.02 normamps=300
new linegeometry.g nconds=3 nphases=3 cond=1 wire=w x=-1 h=10 units=m cond=2 wire=w x=0 h=10 units=m cond=3 wire=w x=1 h=10 units=m
new linecode.c nphases=3 r1=0.3 x1=0.4 r0=0.6 x0=1.2 c1=3 c0=2 units=km normamps=250
new line.one bus1=head bus2=mid geometry=g length=2 units=km
new line.two bus1=mid bus2=far linecode=c length=9000 units=ft
new line.leg bus1=far.2 bus2=leg.2 phases=1 r1=0.5 x1=0.4 length=1 units=mi
new line.tie bus1=far bus2=end switch=yes
new load.a bus1=mid kv=12.47 kw=900 pf=0.9
new load.b bus1=far kv=12.47 kw=700 kvar=300
new load.c bus1=leg.2 phases=1 kv=7.2 kw=120 kvar=40
set voltagebases=[12.47]
calcvoltagebases
"""  # noqa: E501
BY_HAND = """
new xycurve.vv npts=4 xarray=[0.92 0.98 1.02 1.08] yarray=[1 0 0 -1]
new pvsystem.roof bus1=far.1.2.3 phases=3 kv=12.47 pmpp=2000 kva=2200 irradiance=1 pf=1 %cutin=0.1 %cutout=0.1
~ kvarmax=968 kvarmaxabs=968
new load.cars bus1=leg.2 phases=1 kv=7.199557 kw=80 pf=0.95 model=1
new storage.shed bus1=mid phases=3 kv=12.47 kwrated=300 kwhrated=900 kva=300 %stored=50 dispmode=follow %idlingkw=0
~ kvarmax=132 kvarmaxabs=132 %reserve=0
new invcontrol.vv derlist=[pvsystem.roof storage.shed] mode=voltvar voltage_curvex_ref=rated vvc_curve1=vv
~ refreactivepower=varmax
"""
ADDED: dict[str, Any] = {
    "roof": {"kind": "pv", "bus": "far", "p_max_kw": 2000, "s_max_kva": 2200},
    "cars": {"kind": "load", "bus": "leg", "p_kw": 80, "pf": 0.95},
    "shed": {"kind": "storage", "bus": "mid", "p_max_kw": 300, "e_max_kwh": 900},
    "vv": {"kind": "volt_var"},
}


def write(folder: Path, text: str) -> Feeder:
    folder.mkdir(exist_ok=True)
    (folder / "Master.dss").write_text(text)
    return read_feeder(folder / "Master.dss")


@pytest.fixture
def feeder(tmp_path: Path) -> Feeder:
    return write(tmp_path / "small", MASTER)


def change(feeder: Feeder, **changes: Any) -> Feeder:
    return change_feeder(feeder, FeederChanges.model_validate(changes), network_of(feeder))


def voltages(feeder: Feeder) -> dict[str, float]:
    with closing(Circuit(feeder, tolerance=1e-9)) as circuit:
        return dict(zip(circuit.network.nodes, np.abs(circuit.v[1:]) / circuit.network.v_base, strict=True))


def test_additions_solve_as_the_same_written_by_hand(feeder: Feeder, tmp_path: Path) -> None:
    changed, by_hand = voltages(change(feeder, add=ADDED)), voltages(write(tmp_path / "hand", MASTER + BY_HAND))
    assert changed == pytest.approx(by_hand, abs=1e-7)
    assert abs(changed["far.1"] - voltages(feeder)["far.1"]) > 0.01


def test_volt_var_absorbs_by_its_curve(feeder: Feeder) -> None:
    with closing(Circuit(change(feeder, add=ADDED, scale={"load": 0.1}), tolerance=1e-9)) as circuit:
        v_pu = np.abs(circuit.v[1:]) / circuit.network.v_base
        here = v_pu[circuit.network.nodes_of([circuit.network.bus_index["far"]])].mean()
        roof = circuit.handles["PVSystem"]["roof"]
        kvar = circuit.engine.get_float(roof, "PVSystem", "kvar")
        assert kvar == pytest.approx(2200.0 * np.interp(here, *zip(*IEEE1547_B, strict=True)), abs=2.0)
        assert kvar < -10.0


def test_scale_multiplies_loads_and_impedances_and_nothing_else(feeder: Feeder) -> None:
    changed = change(feeder, scale={"load": 1.3, "line_r": 1.1, "line_x": 1.2})
    with closing(Circuit(feeder)) as before, closing(Circuit(changed)) as after:
        for key, factor in (("RMatrix", 1.1), ("XMatrix", 1.2), ("CMatrix", 1.0)):
            for name in ("one", "two", "leg"):
                read = [each.engine.get_floats(each.handles["Line"][name], "Line", key) for each in (before, after)]
                assert read[1] == pytest.approx(factor * read[0], rel=1e-9, abs=1e-12)
        assert after.network.loads.kw == pytest.approx(1.3 * before.network.loads.kw)
        assert after.network.loads.kvar == pytest.approx(1.3 * before.network.loads.kvar)
        same = ("norm_amps", "length_km", "has_length_unit", "is_switch")
        for name in same:
            assert getattr(after.network.branches, name) == pytest.approx(getattr(before.network.branches, name))
        ties = [each.engine.yprims([each.handles["Line"]["tie"]]) for each in (before, after)]
        assert np.array_equal(*ties)


def test_no_change_is_the_same_feeder_and_scenario(feeder: Feeder) -> None:
    assert change(feeder) is feeder
    plain = load_scenario("ieee13_mg")
    assert load_scenario(plain, {"feeder_changes": {"scale": {"load": 1.0}}}).digest() == plain.digest()
    other = load_scenario(plain, {"feeder_changes.scale.load": 1.1})
    assert other.digest() != plain.digest()
    assert other.read_feeder().key != plain.read_feeder().key


def test_added_load_follows_its_shape_and_others_what_they_did() -> None:
    hours = [float(hour) for hour in range(24)]
    cars = {"cars": {"kind": "load", "bus": 675, "p_kw": 10.0, "shape": hours}}
    played = []
    for add in ({}, cars):
        scenario = load_scenario("ieee13_mg", {"feeder_changes.add": add, "step_minutes": 60, "episode_length": 24,
                                               "load_scale": 0.5})  # fmt: skip
        with closing(scenario.simulate()) as simulation:
            simulation.reset(0, np.random.default_rng(0), 10)
            played.append((simulation.network.loads.names, simulation.day_load_kw[0].copy()))
    (names, before), (more, after) = played
    assert more == (*names, "cars")
    assert np.array_equal(before, after[:, :-1])
    assert after[:24, -1] == pytest.approx(10.0 * np.array(hours))


def test_wrong_changes_are_told_together(feeder: Feeder) -> None:
    wrong = {
        "roof": {"kind": "pv", "bus": "fra", "p_max_kw": 1},
        "a": {"kind": "load", "bus": "leg", "phases": [1], "p_kw": 1},
        "b c": {"kind": "load", "bus": "far", "p_kw": 1},
        "vv": {"kind": "volt_var", "inverters": ["rof"]},
    }
    with pytest.raises(FeederError) as error:
        change(feeder, add=wrong)
    assert [(each.code, each.where) for each in error.value.details] == [
        ("unknown-bus", "feeder_changes.add.roof.bus"),
        ("name-taken", "feeder_changes.add.a"),
        ("missing-phase", "feeder_changes.add.a.bus"),
        ("bad-name", "feeder_changes.add.b c"),
        ("unknown-name", "feeder_changes.add.vv.inverters"),
    ]
    with pytest.raises(ScenarioError) as told:
        load_scenario("ieee13_mg", {"feeder_changes": {"add": {"x": {"kind": "pw", "bus": "675"}, "y": {"kind": "pv",
                      "bus": "675", "p_max_kw": 1, "fp": 1}}, "scale": {"lode": 2}}})  # fmt: skip
    assert told.value.problems == (
        "feeder_changes.add.x: unknown kind 'pw' (did you mean 'pv'?)",
        "feeder_changes.add.y: unknown key 'fp' (did you mean 'pf'?)",
        "feeder_changes.scale: unknown key 'lode' (did you mean 'load'?)",
    )
