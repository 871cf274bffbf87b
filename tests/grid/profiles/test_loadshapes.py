"""Demand by the model's own LoadShapes: by identity, at the values that OpenDSS takes in its own modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import powergrid
from powergrid.errors import ScenarioError
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.demand import Demand
from powergrid.grid.profiles.profiles import builtin_profiles, find_shape_problems, follow_loadshapes
from tests.grid.referee import compiled, play

#: Stiff enough that loads draw what they are asked.
HEAD = """Clear
New Circuit.shaped basekv=12.47 pu=1.0 mvasc3=200000 mvasc1=210000
New Line.a bus1=sourcebus bus2=b r1=0.001 x1=0.001 r0=0.001 x0=0.001 c1=0 c0=0 length=1
New Capacitor.bank bus1=b kv=12.47 kvar=50
"""
TAIL = """Set VoltageBases=[12.47]
CalcVoltageBases
"""
SHAPES = """New LoadShape.hours npts=24 interval=1
~ mult=[.1 .2 .3 .4 .5 .6 .7 .8 .9 1 .9 .8 .7 .6 .5 .4 .3 .2 .1 .2 .3 .4 .5 .6]
New LoadShape.own_q npts=4 interval=6 mult=[.2 .4 .6 .8] qmult=[1.6 -.2 0 .5]
New LoadShape.quarters npts=7 minterval=15 mult=[.1 .2 .3 .4 .5 .6 .7]
New LoadShape.sevens npts=11 minterval=7 mult=[.1 .2 .3 .4 .5 .6 .7 .8 .9 1 1.1]
New LoadShape.actual npts=4 interval=6 mult=[120 180 240 150] useactual=yes
New LoadShape.actual_q npts=4 interval=6 mult=[50 20 30 80] qmult=[5 0 3 -8] useactual=yes
New LoadShape.uneven npts=4 interval=0 hour=[1 2 5 16] mult=[.1 .2 .9 .4] qmult=[.4 .3 .2 .1]
New LoadShape.from_0 npts=3 interval=0 hour=[0 6 24] mult=[.1 .9 .4]
New LoadShape.one npts=1 interval=1 mult=[.7]
New LoadShape.empty
New LoadShape.cut npts=6 interval=1 mult=[.1 .2 .3]
New LoadShape.longer npts=2 interval=4 mult=[.1 .2 .3 .4]
New LoadShape.below npts=4 interval=6 mult=[.5 -.2 .3 .8]
New LoadShape.normal npts=4 interval=6 mult=[50 20 30 80] action=normalize
New LoadShape.flat npts=4 interval=6 mult=[.11 .12 .13 .14]
New LoadShape.mixed npts=4 interval=6 mult=[.21 .22 .23 .24]
New LoadShape.mixed_2 npts=4 interval=6 mult=[.31 .32 .33 .34]
New LoadShape.house_0 npts=4 interval=6 mult=[.41 .42 .43 .44]
New LoadShape.1 npts=4 interval=6 mult=[.51 .52 .53 .54]
New LoadShape.res.1 npts=4 interval=6 mult=[.61 .62 .63 .64]
New LoadShape.com@east npts=4 interval=6 mult=[.71 .72 .73 .74]
New "LoadShape.ind 3" npts=4 interval=6 mult=[.81 .82 .83 .84]
New LoadShape.größe npts=4 interval=6 mult=[.91 .92 .93 .94]
"""
NAMES = [line.split("LoadShape.")[1].split(" npts")[0].strip('"\n') for line in SHAPES.splitlines() if line[0] != "~"]
LOADS = "".join(f'New Load.l{i} bus1=b kv=12.47 kw=100 kvar=30 daily="{name}"\n' for i, name in enumerate(NAMES))
RULES = """New Load.none bus1=b kv=12.47 kw=100 kvar=30
New Load.shop[2] bus1=b kv=12.47 kw=100 kvar=30 daily=hours
New Load.a.b bus1=b kv=12.47 kw=100 kvar=30 daily=own_q
New Load.fixed bus1=b kv=12.47 kw=100 kvar=30 daily=own_q status=fixed
New Load.exempt bus1=b kv=12.47 kw=100 kvar=30 daily=own_q status=exempt
New Load.fixed_q bus1=b kv=12.47 kw=100 kvar=30 daily=own_q model=6
New Load.fixed_x bus1=b kv=12.47 kw=100 kvar=30 daily=actual_q model=7
New Load.zip bus1=b kv=12.47 kw=100 kvar=30 daily=own_q model=8 zipv=[.3 .3 .4 .3 .3 .4 .5]
New Load.cvr bus1=b kv=12.47 kw=100 kvar=30 daily=own_q model=4 cvrwatts=.8 cvrvars=2.5
New Load.by_i bus1=b kv=12.47 kw=100 kvar=30 daily=own_q model=5
New Load.given bus1=b kv=12.47 daily=actual_q kw=300 kvar=20
New Load.factor bus1=b kv=12.47 daily=actual_q kw=300 pf=-.9
New Load.nothing bus1=b kv=12.47 daily=actual kw=0 kvar=0
New Load.back bus1=b kv=12.47 kw=-80 kvar=10 daily=hours
New Load.yearly bus1=b kv=12.47 kw=100 kvar=30 yearly=own_q
New Load.both bus1=b kv=12.47 kw=100 kvar=30 yearly=hours daily=own_q
New Load.edited bus1=b kv=12.47 kw=100 kvar=30 daily=hours
BatchEdit Load.edit.* daily=own_q
New Load.copy like=edited bus1=b kv=12.47 daily=below
New Load.duty bus1=b kv=12.47 kw=100 kvar=30 daily=hours duty=own_q
New Load.grows bus1=b kv=12.47 kw=100 kvar=30 daily=hours growth=g
New Load.grows_q bus1=b kv=12.47 kw=100 kvar=30 daily=hours model=6
"""
GROWTH = "New GrowthShape.g npts=3 year=[2 4 6] mult=[1.1 1.2 1.3]\n"


def write(folder: Path, body: str) -> Path:
    master = folder / "shaped.dss"
    master.write_text(HEAD + GROWTH + SHAPES + body + TAIL)
    return master


def demand_of(master: Path, step_minutes: int, **options: object) -> tuple[dict[str, np.ndarray], ...]:
    """Return what loads are asked over day 0 [kW], [kvar], by name."""
    network = network_of(read_feeder(master))
    profiles = follow_loadshapes(network, builtin_profiles()).resample(step_minutes)
    demand = Demand(profiles, SimulationOptions(step_minutes=step_minutes, **options), network)
    kw, kvar = np.zeros((2, 1440 // step_minutes, len(network.loads.names)))
    demand.lay_out(0, kw, kvar)
    return tuple(dict(zip(network.loads.names, values.T, strict=True)) for values in (kw, kvar))


@pytest.mark.parametrize(
    ("setting", "mode", "step_minutes"),
    [
        ("Set mode=daily", "daily", 15),
        ("Solve mode=Yearly number=8760", "yearly", 60),
        ("Set mode=dutycycle loadmult=1.3", "dutycycle", 5),
        ("Set mode=daily LoadMult=1.3 year=5", "daily", 30),
        ("Set mode=yearly LoadMult=1.3 Year=8 %growth=4", "yearly", 60),
    ],
)
def test_every_load_draws_what_it_draws_in_the_engines_own_mode(
    tmp_path: Path, setting: str, mode: str, step_minutes: int
) -> None:
    master = write(tmp_path, LOADS + RULES)
    ours = tmp_path / "ours.dss"
    ours.write_text(master.read_text() + setting + "\n")
    kw, kvar = demand_of(ours, step_minutes)
    master.write_text(master.read_text() + "Set " + setting.split(maxsplit=1)[1] + "\n")
    with compiled(master) as engine:
        played = play(engine, mode, 1440 // step_minutes, step_minutes)
    assert len(kw) == len(NAMES) + 21
    # Load models draw by the voltage, which is 1 pu but for the fourth digit.
    loose = {"zip", "cvr", "by_i", "fixed_x"}
    for name in kw:
        own = played[f"load.{name}"]
        within = {"rtol": 2e-3, "atol": 1e-2} if name in loose else {"rtol": 1e-6, "atol": 1e-6}
        np.testing.assert_allclose(kw[name], own.real, err_msg=name, **within)
        np.testing.assert_allclose(kvar[name], own.imag, err_msg=name, **within)


def test_yearly_counts_where_the_model_wrote_it_else_daily(tmp_path: Path) -> None:
    kw, _ = demand_of(write(tmp_path, LOADS + RULES), 60)
    hours, own_q, below = (kw[f"l{NAMES.index(name)}"] for name in ("hours", "own_q", "below"))
    np.testing.assert_allclose(kw["both"], hours)
    np.testing.assert_allclose(kw["edited"], own_q)
    np.testing.assert_allclose(kw["copy"], below)
    np.testing.assert_allclose(kw["yearly"], own_q)


def test_shapes_named_like_classes_and_patterns_are_names_like_others(tmp_path: Path) -> None:
    env = powergrid.make(write(tmp_path, LOADS + RULES), split="all")
    env.reset(seed=0, options={"day": 3})
    simulation = env.task.simulation
    at_noon = dict(zip(simulation.network.loads.names, simulation.day_load_kw[0, 48], strict=True))
    found = {name: round(at_noon[f"l{i}"], 6) for i, name in enumerate(NAMES) if name in NAMES[14:]}
    assert found == {
        "flat": 12.0,
        "mixed": 22.0,
        "mixed_2": 32.0,
        "house_0": 42.0,
        "1": 52.0,
        "res.1": 62.0,
        "com@east": 72.0,
        "ind 3": 82.0,
        "größe": 92.0,
    }
    env.close()


def test_rules_of_the_scenario_go_before_the_feeders_shapes(tmp_path: Path) -> None:
    master = write(tmp_path, LOADS + RULES)
    kw, _ = demand_of(master, 60, load_classes={"shop[2]": "Flat", "fix*": "own_q", "none": "flat"})
    by_name = {name: kw[f"l{i}"] for i, name in enumerate(NAMES)}
    np.testing.assert_allclose(kw["shop[2]"], by_name["flat"])
    np.testing.assert_allclose(kw["fixed"], by_name["own_q"])
    with pytest.raises(ScenarioError, match="unknown class 'sevenz'"):
        demand_of(master, 60, load_classes={"none": "sevenz"})


def test_fixed_loads_keep_to_their_demand_without_shapes_too(tmp_path: Path) -> None:
    network = network_of(read_feeder(write(tmp_path, RULES)))
    demand = Demand(builtin_profiles(), SimulationOptions(load_scale=2.0), network)
    kw, kvar = np.zeros((2, 96, len(network.loads.names)))
    demand.lay_out(5, kw, kvar)
    at = {name: i for i, name in enumerate(network.loads.names)}
    assert np.unique(kw[:, at["fixed"]]).tolist() == [200.0]
    assert np.unique(kvar[:, at["fixed_q"]]).tolist() == [60.0]
    assert np.ptp(kw[:, at["fixed_q"]]) > 0.0
    assert np.ptp(kw[:, at["exempt"]]) > 0.0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("npts=4 interval=1", "has no multipliers for its 4 points"),
        ("npts=4 interval=1 qmult=[1 1 1 1]", "has no multipliers for its 4 points"),
        ("npts=2 interval=0 mult=[1 2]", "neither a fixed interval nor hours that increase"),
        ("npts=2 interval=0 hour=[5 3] mult=[1 2]", "neither a fixed interval nor hours that increase"),
    ],
)
def test_shapes_that_cannot_be_followed_are_told(tmp_path: Path, shape: str, message: str) -> None:
    body = f"New LoadShape.odd {shape}\nNew Load.x bus1=b kv=12.47 kw=100 daily=odd\n"
    master = write(tmp_path, body)
    (problem,) = find_shape_problems(network_of(read_feeder(master)))
    assert message in problem
    with pytest.raises(ScenarioError, match=message):
        powergrid.make(master, profiles={"source": "loadshapes"})
    assert powergrid.load_scenario(master).profiles.source == "builtin"  # discovery says why among its notes


def test_shape_mode_of_the_scenario_goes_before_the_models(tmp_path: Path) -> None:
    master = write(tmp_path, RULES + "Set mode=daily\n")
    kw = {}
    for mode in (None, "yearly", "duty"):
        env = powergrid.make(master, profiles={"shape_mode": mode}, split="all")
        env.reset(seed=0, options={"day": 0})
        simulation = env.task.simulation
        kw[mode] = dict(zip(simulation.network.loads.names, simulation.day_load_kw[0, 40], strict=True))
        env.close()
    assert [kw[mode]["both"] for mode in kw] == pytest.approx([40.0, 100.0, 40.0])
    assert [kw[mode]["duty"] for mode in kw] == pytest.approx([100.0, 100.0, 40.0])
