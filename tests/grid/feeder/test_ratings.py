"""What the model gives as a rating counts; what OpenDSS fills in where it says nothing does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.check.inspection import inspect_feeder
from powergrid.grid.circuit.circuit import Circuit, Snapshot, network_of
from powergrid.grid.feeder.changes import FeederChanges, change_feeder
from powergrid.grid.feeder.compose import compose
from powergrid.grid.feeder.feeder import Feeder, read_feeder
from powergrid.grid.feeder.microgrid import MicrogridSpec

HEAD = """
Clear
New Circuit.rated bus1=s basekv=12.47 pu=1.02
New LineCode.bare nphases=3 r1=0.3 x1=0.6
New LineCode.given nphases=3 r1=0.3 x1=0.6 normamps=400
New LineCode.same like=given
New WireData.wb rac=0.3 runits=mi gmrac=0.02 gmrunits=ft radius=0.03 radunits=ft
New WireData.wg rac=0.3 runits=mi gmrac=0.02 gmrunits=ft radius=0.03 radunits=ft normamps=321
New LineSpacing.flat nconds=3 nphases=3 x=(0 1 2) h=(10 10 10) units=ft
New LineGeometry.gb nconds=3 nphases=3 spacing=flat wires=[wb wb wb]
New LineGeometry.gg nconds=3 nphases=3 spacing=flat wires=[wg wg wg]
New XfmrCode.bare kvs=(12.47 0.48)
New XfmrCode.given kvs=(12.47 0.48) kvas=(1000 1000)
New LineCode.before nphases=3 r1=0.3 x1=0.6
New LineCode.main nphases=3 r1=0.3 x1=0.6 normamps=410
New Line.main bus1=s bus2=b linecode=main length=0.1
New Line.own bus1=s bus2=b r1=3 x1=6 normamps=400
"""
TAIL = """
Edit LineCode.before normamps=300
New Load.b bus1=b kv=12.47 kw=900 kvar=300
New Load.c bus1=c kv=12.47 kw=300 kvar=100
New Load.lv bus1=lv kv=0.48 kw=100 kvar=20
Set VoltageBases=[12.47 0.48]
CalcVoltageBases
"""
KVA = 1.1 * 1000.0 / (3**0.5 * 12.47)  # [A]; OpenDSS lets a transformer carry 110 % of its kVA
#: An element between b and c, and its rating by the model [A].
LINES = {
    "length=1": 0.0,
    "length=1 normamps=400": 400.0,
    "length=1 emergamps=600": 0.0,
    "switch=yes": 0.0,
    "switch=yes normamps=600": 600.0,
    "linecode=bare": 0.0,
    "linecode=given": 400.0,
    "linecode=same": 400.0,
    "normamps=250 linecode=bare": 0.0,  # which the line code overwrites
    "linecode=bare normamps=400": 400.0,
    "linecode=bare normamps=400 emergamps=600": 400.0,
    "linecode=bare r1=0.2": 0.0,  # which takes the code away, but not what it wrote
    "linecode=main r1=0.2": 410.0,
    "linecode=bare r1=0.2 normamps=400": 400.0,
    "linecode=before": 0.0,  # at the time
    "like=own bus2=c": 400.0,
    "like=main bus2=c": 410.0,
    "geometry=gb": 0.0,
    "geometry=gg": 321.0,
    "spacing=flat wires=[wb wb wb]": 0.0,
    "spacing=flat wires=[wg wg wg]": 321.0,
}
REACTORS = {
    "r=0.02 x=0.3": 0.0,
    "lmh=0.8": 0.0,
    "z=(0.02 0.3)": 0.0,
    "z1=(0.02 0.3) z0=(0.05 0.5)": 0.0,
    "rmatrix=(0.02 | 0 0.02 | 0 0 0.02) xmatrix=(0.3 | 0 0.3 | 0 0 0.3)": 0.0,
    "kvar=300 kv=12.47 x=0.3": 0.0,
    "r=0.02 x=0.3 normamps=200": 200.0,
    "kvar=90000 kv=12.47": 90000.0 / (3**0.5 * 12.47),
}
TRANSFORMERS = {
    "kvs=(12.47 0.48)": 0.0,
    "kvs=(12.47 0.48) kvas=(1000 1000)": KVA,
    "kvs=(12.47 0.48) wdg=1 kva=1000": KVA,
    "xfmrcode=bare": 0.0,
    "xfmrcode=given": KVA,
}


def write(folder: Path, element: str) -> Path:
    path = folder / "Master.dss"
    path.write_text(HEAD + element + TAIL)
    return path


def rating_of(path: Path, name: str) -> float:
    return rating_in(read_feeder(path), name)


def rating_in(feeder: Feeder, name: str) -> float:
    circuit = Circuit(feeder)
    try:
        return float(circuit.network.branches.norm_amps[circuit.network.branch_index[name]])
    finally:
        circuit.close()


@pytest.mark.parametrize(("said", "amps"), LINES.items())
def test_line_is_rated_where_it_or_its_type_says_so(said: str, amps: float, tmp_path: Path) -> None:
    element = f"New Line.x {said} bus1=b bus2=c" if "like" in said else f"New Line.x bus1=b bus2=c {said}"
    assert rating_of(write(tmp_path, element), "line.x") == pytest.approx(amps)


@pytest.mark.parametrize("said", LINES)
def test_scaled_line_is_rated_where_it_was(said: str, tmp_path: Path) -> None:
    element = f"New Line.x {said} bus1=b bus2=c" if "like" in said else f"New Line.x bus1=b bus2=c {said}"
    feeder = read_feeder(write(tmp_path, element))
    changes = FeederChanges.model_validate({"scale": {"line_r": 1.2}})
    changed = change_feeder(feeder, changes, network_of(feeder))
    assert rating_in(changed, "line.x") == pytest.approx(LINES[said])


def test_line_of_a_code_without_a_silent_one_is_rated_by_it(tmp_path: Path) -> None:
    path = write(tmp_path, "New Line.x bus1=b bus2=c linecode=given r1=0.2\nNew Line.y like=x bus2=c")
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if "LineCode.b" not in line))
    assert [rating_of(path, name) for name in ("line.x", "line.y")] == [400.0, 400.0]


@pytest.mark.parametrize(("said", "amps"), REACTORS.items())
def test_reactor_is_rated_by_amperes_or_its_own_kvar(said: str, amps: float, tmp_path: Path) -> None:
    assert rating_of(write(tmp_path, f"New Reactor.x bus1=b bus2=c {said}"), "reactor.x") == pytest.approx(amps)


@pytest.mark.parametrize(("said", "amps"), TRANSFORMERS.items())
def test_transformer_is_rated_where_it_or_its_code_has_kva(said: str, amps: float, tmp_path: Path) -> None:
    path = write(tmp_path, f"New Transformer.x buses=(b lv) {said}\nNew Line.c bus1=b bus2=c linecode=given")
    assert rating_of(path, "transformer.x") == pytest.approx(amps)


def test_shunt_has_no_loading_and_no_finding(tmp_path: Path) -> None:
    path = write(tmp_path, "New Line.c bus1=b bus2=c linecode=given\nNew Reactor.x bus1=c kv=12.47 kvar=50")
    assert rating_of(path, "reactor.x") == 0.0  # at 1.02 pu it would be overloaded for ever
    assert not inspect_feeder(path).of_code("no-rating")


def test_rating_of_the_scenario_wins_and_placeholders_are_never_overloaded(tmp_path: Path) -> None:
    path = write(tmp_path, "New Reactor.x bus1=b bus2=c r=0.02 x=0.3")
    circuit = Circuit(read_feeder(path))
    loading = []
    for ratings in ({}, {"reactor.x": 5.0}):
        circuit.set_ratings(ratings)
        solved = Snapshot.allocate(1, circuit.network, 0)
        circuit.solve()
        circuit.read(solved)
        loading.append(float(solved.loading_pu[0, circuit.network.branch_index["reactor.x"]]))
    assert loading[0] == 0.0
    # 300 kW and 100 kvar at 1.02 pu
    assert loading[1] == pytest.approx(np.hypot(300, 100) / (3**0.5 * 12.47 * 1.02) / 5.0, rel=0.02)
    circuit.close()


def test_check_counts_what_is_unrated_once_a_class(tmp_path: Path) -> None:
    lines = "\n".join(f"New Line.l{i} bus1=b bus2=c length=1" for i in range(6))
    report = inspect_feeder(write(tmp_path, f"{lines}\nNew Reactor.x bus1=b bus2=c r=0.02 x=0.3"))
    found = [(f.message, f.line) for f in report.of_code("no-rating")]
    assert found == [
        (
            "6 Lines without NormAmps (OpenDSS takes 400 A): line.l0, line.l1, line.l2, line.l3, ... (6 in all)",
            18,
        ),
        ("1 Reactor without NormAmps (OpenDSS takes what 100 kvar draw): reactor.x", 24),
    ]


def test_composed_feeder_keeps_what_is_rated_and_what_is_not(tmp_path: Path) -> None:
    host = tmp_path / "host.dss"
    bare = "New Line.x bus1=b bus2=c linecode=bare\nNew Line.y bus1=b bus2=c linecode=bare normamps=400"
    host.write_text(HEAD + bare + TAIL)
    own = write(tmp_path, "New Line.x bus1=b bus2=c linecode=bare\nNew Line.z bus1=b bus2=c linecode=given")
    tie = {
        "kind": "line", "length_km": 1.0, "r1_ohm_per_km": 0.2, "x1_ohm_per_km": 0.3,
        "r0_ohm_per_km": 0.6, "x0_ohm_per_km": 0.9, "norm_amps": 300,
    }  # fmt: skip
    circuit = Circuit(compose(read_feeder(host), {"M": MicrogridSpec(feeder=str(own), bus="b", entry="b", tie=tie)}))
    amps = dict(zip(circuit.network.branches.names, circuit.network.branches.norm_amps, strict=True))
    expected = {"line.x": 0.0, "line.y": 400.0, "line.main": 410.0, "line.m_x": 0.0, "line.m_z": 400.0}
    assert {name: amps[name] for name in expected} == expected
    circuit.close()
