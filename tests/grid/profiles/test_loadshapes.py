"""Demand by the model's own LoadShapes: multipliers as such, actual values over the load's kW."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import powergrid
from powergrid.errors import ScenarioError
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.profiles.profiles import find_shape_problems, shape_of_loads

SHAPED = """
Clear
New Circuit.shaped basekv=4.16 pu=1.0
New LoadShape.part npts=4 interval=6 mult=(0.5 0.8 1.0 0.6)
New LoadShape.metered npts=4 interval=6 mult=(120 180 240 150) useactual=yes
New Line.l1 bus1=sourcebus bus2=b length=1 units=km r1=0.1 x1=0.2 r0=0.3 x0=0.6 c1=0 c0=0
New Capacitor.bank bus1=b kv=4.16 kvar=50
New Load.share bus1=b kv=4.16 kw=400 kvar=100 daily=part
New Load.one bus1=b kv=4.16 kw=200 kvar=20 daily=metered
New Load.two bus1=b kv=4.16 kw=300 kvar=20 yearly=metered
Set VoltageBases=[4.16]
CalcVoltageBases
"""


def test_actual_values_are_drawn_as_kw_whatever_the_loads_kw(tmp_path: Path) -> None:
    master = tmp_path / "shaped.dss"
    master.write_text(SHAPED)
    env = powergrid.make(master, split="all")
    assert env.scenario.profiles.source == "loadshapes"
    env.reset(seed=0, options={"day": 3})
    simulation = env.task.simulation
    at = {name: i for i, name in enumerate(simulation.network.loads.names)}
    for hour, metered, part in ((1, 120, 0.5), (7, 180, 0.8), (13, 240, 1.0), (23, 150, 0.6)):
        kw = simulation.day_load_kw[0, 4 * hour]
        assert kw[at["one"]] == pytest.approx(metered)
        assert kw[at["two"]] == pytest.approx(metered)
        assert kw[at["share"]] == pytest.approx(400 * part)
    env.close()


def test_actual_values_on_a_load_without_kw_are_refused_by_name(tmp_path: Path) -> None:
    master = tmp_path / "shaped.dss"
    master.write_text(SHAPED.replace("yearly=metered", "yearly=metered kw=0"))
    circuit = Circuit(read_feeder(master))
    problems = find_shape_problems(circuit.network)
    assert len(problems) == 1
    assert "LoadShape 'metered' has actual values (UseActual=yes) and a load of 0 kW" in problems[0]
    assert set(shape_of_loads(circuit.network).values()) == {"part", "metered@240kw", "metered@0kw"}
    circuit.close()
    with pytest.raises(ScenarioError, match="UseActual"):
        powergrid.make(master, profiles={"source": "loadshapes"})
    assert powergrid.load_scenario(master).profiles.source == "builtin"  # discovery says why among its notes


def test_multipliers_are_untouched(tmp_path: Path) -> None:
    master = tmp_path / "shaped.dss"
    master.write_text(SHAPED)
    circuit = Circuit(read_feeder(master))
    values, interval = circuit.network.load_shapes["part"]
    np.testing.assert_array_equal(values, [0.5, 0.8, 1.0, 0.6])
    assert interval == 360
    circuit.close()
