"""A feeder that solves as it stands, and not where agents can take it."""

from __future__ import annotations

from pathlib import Path

import pytest

from powergrid.check.extremes import reach_of
from powergrid.check.inspection import inspect_feeder
from powergrid.grid.devices import SPECS

FEEDER = """
Clear
New Circuit.end basekv=12.47 pu=1.0 mvasc3=200 mvasc1=150
New Line.far bus1=sourcebus bus2=b r1=0.4 x1=0.6 c1=0 c0=0 length=30 units=km normamps=300
New Load.l bus1=b kv=12.47 kw=300 kvar=100
New Storage.s bus1=b kv=12.47 kwrated={kw} kwhrated=9000
Set VoltageBases=[12.47]
CalcVoltageBases
"""


@pytest.mark.parametrize(("kw", "fails"), [(300, False), (9000, True)])
def test_extremes_that_do_not_solve_are_told(tmp_path: Path, kw: int, fails: bool) -> None:
    path = tmp_path / "Master.dss"
    path.write_text(FEEDER.format(kw=kw))
    report = inspect_feeder(path)
    assert report.snapshot is not None  # as it stands it solves
    found = report.of_code("extremes")
    assert bool(found) is fails
    if fails:
        assert "all devices at their least (-9,000 kW, " in found[0].message
        assert not report.errors


def test_reach_is_what_the_device_itself_allows() -> None:
    storage = {"kind": "storage", "bus": "b", "e_max_kwh": 9, "p_max_kw": 3, "s_max_kva": 5, "reactive": True}
    assert reach_of(SPECS["storage"].model_validate(storage)) == ((-3.0, 3.0), (-4.0, 4.0))
    limited = storage | {"q_absorb_max_kvar": 1, "p_charge_max_kw": 2}
    assert reach_of(SPECS["storage"].model_validate(limited)) == ((-2.0, 3.0), (-1.0, 4.0))
    solar = {"kind": "inverter", "bus": "b", "p_max_kw": 9, "s_max_kva": 10, "p_limit_kw": 8, "reactive": "category_b"}
    assert reach_of(SPECS["inverter"].model_validate(solar)) == ((0.0, 8.0), (-4.4, 4.4))
