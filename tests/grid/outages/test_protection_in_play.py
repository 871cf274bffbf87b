"""What the feeder's own protection takes off load while it plays: dead, not at 0 V, from the step it trips in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.profiles import builtin_profiles, follow_loadshapes
from powergrid.grid.simulation import Simulation

FEEDER = """Clear
New Circuit.trips basekv=12.47
New LoadShape.surge npts=12 interval=1 mult=(.2 .2 .2 .2 .2 3 3 3 3 .2 .2 .2)
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4 c1=0 c0=0
New Line.l2 bus1=b bus2=c length=1 units=km R1=0.3 X1=0.4 c1=0 c0=0
New Transformer.t buses=(c d) kvs=(12.47 .48) kvas=(500 500) conns=(wye wye)
New Load.all bus1=c kV=12.47 kW=300 kvar=10 daily=surge model=2
New Load.one bus1=c.1 phases=1 kV=7.2 kW=300 kvar=10 daily=surge model=2
New Load.low bus1=d kV=.48 kW=100 kvar=10 daily=surge
New Load.head bus1=b kV=12.47 kW=20 kvar=10
"""
TAIL = "\nSet VoltageBases=[12.47 .48]\nCalcVoltageBases\n"
#: What trips, the phases that stay at b, c and d, and the demand that is lost then [kW].
TRIPS = {
    "one phase": ("New Fuse.f MonitoredObj=Line.l2 RatedCurrent=40", ("b", "c.2", "c.3", "d.2", "d.3"), 1300.0),
    "recloser": ("New Recloser.r MonitoredObj=Line.l2 PhaseTrip=80 Shots=1 PhaseFast=d PhaseDelayed=d", ("b",), 2100.0),
    "relay": ("New Relay.r MonitoredObj=Line.l2 Type=Current PhaseCurve=mod_inv PhaseTrip=80 Shots=1", ("b",), 2100.0),
    "transformer": ("New Fuse.f MonitoredObj=Transformer.t RatedCurrent=3", ("b", "c"), 300.0),
}


@pytest.mark.parametrize("trip", list(TRIPS))
def test_what_protection_takes_off_load_is_dead_from_that_step_and_fed_again_in_the_next_episode(
    tmp_path: Path, trip: str
) -> None:
    control, stays, lost_kw = TRIPS[trip]
    (tmp_path / "Master.dss").write_text(FEEDER + control + TAIL)
    feeder = read_feeder(tmp_path / "Master.dss")
    options = SimulationOptions(step_minutes=60, horizon_steps=24, split="all", native_controls=True)
    probe = Simulation(feeder, {}, builtin_profiles(), options)
    simulation = Simulation(feeder, {}, follow_loadshapes(probe.network, builtin_profiles(), None), options)
    fed = np.array([name.startswith(("sourcebus", *stays)) for name in simulation.network.nodes])
    for _ in range(2):
        simulation.reset(0, np.random.default_rng(0), day=0)
        islands = simulation.islands
        assert islands is not None
        for hour in range(12):
            if hour == 7:  # once more from a state in which it has tripped
                kept = simulation.state()
                simulation.reset(0, np.random.default_rng(0), day=0)
                simulation.restore(kept)
            simulation.step(simulation.neutral())
            surges = hour >= 5  # a step is played at the hour that it ends at
            assert simulation.snapshot.converged.all()
            assert np.array_equal(simulation.energised[0], fed if surges else np.ones_like(fed))
            assert np.array_equal(simulation.snapshot.v_pu[0] > 0.02, simulation.energised[0])
            lost = islands.total_unserved_kw()[0]
            assert lost == pytest.approx(lost_kw if 5 <= hour < 9 else lost_kw / 15 if surges else 0.0)


@pytest.mark.parametrize("trip", ["one phase", "recloser", "relay"])
def test_protection_that_nominal_demand_trips_is_whole_where_no_hour_asks_for_as_much(
    tmp_path: Path, trip: str
) -> None:
    heavy = FEEDER.replace("3 3 3 3", ".25 .25 .25 .25").replace("kW=300", "kW=1200")
    (tmp_path / "Master.dss").write_text(heavy + TRIPS[trip][0] + TAIL)
    feeder = read_feeder(tmp_path / "Master.dss")
    options = SimulationOptions(step_minutes=60, horizon_steps=12, split="all", native_controls=True)
    network = Simulation(feeder, {}, builtin_profiles(), options).network
    simulation = Simulation(feeder, {}, follow_loadshapes(network, builtin_profiles(), None), options)
    simulation.reset(0, np.random.default_rng(0), day=0)
    for _ in range(2):
        simulation.step(simulation.neutral())
        assert simulation.energised.all()
        assert not simulation.circuits[0].protection.open_rows().size
        assert simulation.circuits[0].closed.all()
