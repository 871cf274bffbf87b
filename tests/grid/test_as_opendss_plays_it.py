"""A day under the feeder's own controls is the day that OpenDSS plays in a mode of its own, element by element."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import powergrid
from powergrid.evaluation.baselines import BASELINES
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.engine import PowerReader
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.feeder.network.shapes import ShapeMode
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.profiles import builtin_profiles, follow_loadshapes
from powergrid.grid.simulation import Simulation
from tests.grid.referee import CLASSES, compiled, play

HEAD = """Clear
New Circuit.own basekv=115 pu=1.02 mvasc3=2000 mvasc1=2100
New LineCode.oh nphases=3 r1=.2 x1=.4 r0=.5 x0=1.2 c1=3 c0=1.5 units=km normamps=400
New LoadShape.hours npts=24 interval=1
~ mult=[.4 .35 .3 .3 .35 .5 .7 .8 .7 .6 .6 .65 .7 .6 .55 .6 .7 .9 1 .95 .8 .7 .6 .5]
New LoadShape.reactive npts=24 interval=1
~ mult=[.4 .35 .3 .3 .35 .5 .7 .8 .7 .6 .6 .65 .7 .6 .55 .6 .7 .9 1 .95 .8 .7 .6 .5]
~ qmult=[1 1 .9 .8 .7 .6 .5 .5 .6 .7 .8 1 1.1 1.2 1.1 1 .9 .8 .7 .6 .7 .8 .9 1]
New LoadShape.sun npts=24 interval=1 mult=[0 0 0 0 0 .05 .2 .4 .6 .8 .95 1 1 .9 .8 .6 .4 .2 .05 0 0 0 0 0]
New LoadShape.metered npts=30 interval=.5 useactual=yes
~ mult=[90 80 70 60 60 60 65 70 80 90 110 130 150 160 170 180 190 200 200 190 180 170 160 150 150 155 160 165 170 175]
New LoadShape.uneven npts=4 interval=0 hour=[2 6 18 23] mult=[.3 .8 1 .4]
New LoadShape.edges npts=4 interval=6 mult=[.5 .8 .9 .6] interpolation=edge
New LoadShape.edgehours npts=4 interval=0 hour=[2 6 18 23] mult=[.3 .8 1 .4] interpolation=edge
New LoadShape.edgeboth npts=3 interval=0 hour=[3 9 24] mult=[.3 .8 1] qmult=[.9 .2 .5] interpolation=edge
New TShape.air npts=24 interval=1 temp=[10 9 8 8 8 9 12 15 20 25 30 35 40 42 42 40 36 30 25 20 17 15 13 11]
New XYCurve.heat npts=4 xarray=[0 25 75 100] yarray=[1.2 1.0 0.8 0.6]
New XYCurve.eff npts=4 xarray=[.1 .2 .4 1] yarray=[.86 .9 .93 .97]
New Transformer.sub windings=2 buses=(sourcebus mv) conns=(delta wye) kvs=(115 12.47) kvas=(8000 8000) xhl=7
New Line.a bus1=mv bus2=b linecode=oh length=3 units=km
New Line.b bus1=b bus2=c linecode=oh length=4 units=km
New Transformer.low windings=2 buses=(c d) kvs=(12.47 .48) kvas=(1500 1500) xhl=5
"""
LOADS = """New Load.town bus1=b kv=12.47 kw=2500 kvar=800 daily=hours
New Load.mill bus1=c kv=12.47 kw=1200 kvar=700 daily=reactive model=1
New Load.zip bus1=c kv=12.47 kw=400 kvar=150 daily=hours model=8 zipv=[.3 .3 .4 .3 .3 .4 .5]
New Load.z bus1=d kv=.48 kw=200 kvar=80 daily=reactive model=2
New Load.i bus1=d kv=.48 kw=150 kvar=50 daily=uneven model=5
New Load.cvr bus1=d kv=.48 kw=100 kvar=40 daily=hours model=4 cvrwatts=.8 cvrvars=2.5
New Load.phase phases=1 bus1=d.2 kv=.277 kw=60 kvar=20 daily=reactive
New Load.delta phases=1 conn=delta bus1=d.1.3 kv=.48 kw=40 kvar=10 daily=hours
New Load.exempt bus1=c kv=12.47 kw=200 kvar=60 status=exempt daily=hours
New Load.pump bus1=c kv=12.47 kw=300 kvar=100 status=fixed daily=hours
New Load.meter bus1=c kv=12.47 daily=metered kw=250 pf=.95
New Load.back bus1=c kv=12.47 kw=-300 kvar=0 daily=sun
New Load.plain bus1=b kv=12.47 kw=100 kvar=30
New Load.steps bus1=b kv=12.47 kw=90 kvar=40 daily=edges
New Load.stays bus1=b kv=12.47 kw=80 pf=.9 daily=edgehours
New Load.holds bus1=c kv=12.47 kw=70 kvar=20 daily=edgeboth
"""
#: Without the load of model 4, which has two solutions where its voltage is at its limit.
CALM = "".join(line for line in LOADS.splitlines(keepends=True) if "Load.cvr" not in line)
GENERATORS = """New Generator.farm bus1=c kv=12.47 kw=900 pf=.98 daily=sun
New Generator.base bus1=b kv=12.47 kw=200 kvar=50
New Generator.held bus1=c kv=12.47 kw=300 pf=1 daily=hours model=3
New Generator.fixed bus1=b kv=12.47 kw=150 pf=.9 daily=hours status=fixed
New Generator.chp bus1=c kv=12.47 daily=metered kw=200
Set GenMult=0.8
"""
PANELS = """New PVSystem.one bus1=c kv=12.47 kva=800 pmpp=900 irradiance=.95 daily=sun
New PVSystem.two bus1=d kv=.48 kva=300 pmpp=250 irradiance=1 daily=sun tdaily=air p-tcurve=heat effcurve=eff pf=.97
~ %cutin=5 %cutout=5
New PVSystem.three phases=1 bus1=d.3 kv=.277 kva=50 pmpp=40 irradiance=.8 yearly=sun daily=sun kvar=10 temperature=35
~ p-tcurve=heat
"""
CONTROLS = """New RegControl.sub transformer=sub winding=2 vreg=122 band=2 ptratio=60 maxtapchange=1
New Capacitor.bank bus1=c kv=12.47 kvar=600
New CapControl.bank element=Line.b terminal=1 capacitor=bank type=kvar ptratio=60 ctratio=1
~ onsetting=500 offsetting=-300
"""
BATTERIES = """New LoadShape.swing npts=24 interval=1
~ mult=[-.5 -.5 -.8 -1 -1 -.6 0 .2 .4 .8 1 1 1 .5 .3 .2 0 0 -.3 -.3 0 .9 .9 .9]
New Storage.follows bus1=c kv=12.47 kwrated=200 kwhrated=700 %stored=50 dispmode=follow daily=swing
New Storage.curved bus1=d kv=.48 kwrated=100 kva=120 kwhrated=300 %stored=50 dispmode=follow daily=swing
~ effcurve=eff pf=.95 %idlingkw=2
New Storage.narrow bus1=c kv=12.47 kwrated=100 kva=50 kwhrated=300 %stored=50 dispmode=follow daily=swing
New Storage.triggered bus1=c kv=12.47 kwrated=100 kwhrated=300 %stored=50 daily=hours dischargetrigger=.8
~ chargetrigger=.4 %charge=50
New Storage.timed bus1=c kv=12.47 kwrated=100 kwhrated=300 %stored=30 daily=hours dischargetrigger=.8 timechargetrig=2
New Storage.idle bus1=c kv=12.47 kwrated=100 kwhrated=300 %stored=50
New Storage.empties bus1=c kv=12.47 kwrated=100 kwhrated=300 %stored=90 state=discharging %discharge=40
"""
ODD_LOADS = """New Load.curved bus1=b kv=12.47 kw=80 kvar=40 daily=hours model=4 cvrwatts=.8 cvrcurve=reactive
New Load.other bus1=b kv=12.47 kw=80 kvar=40 model=4 cvrcurve=hours
New Load.unlike bus1=b kv=12.47 kw=80 kvar=40 model=1 cvrcurve=hours
New Load.gauge bus1=b kv=12.47 kw=0 pf=.9 daily=metered
"""
MACHINES = """New LoadShape.kv npts=4 interval=6 useactual=yes mult=[7.2 7.3 7.25 7.1]
New Isource.follows bus1=c amps=3 angle=30 daily=hours
New Isource.metered bus1=c.2 phases=1 amps=.01 daily=metered
New Isource.stands bus1=c amps=1 angle=80
New IndMach012.follows bus1=d kv=.48 kw=80 kva=120 daily=hours yearly=hours
New IndMach012.metered bus1=c kv=12.47 kw=80 kva=300 conn=wye daily=metered
New IndMach012.wind bus1=c kv=12.47 kw=-150 kva=200 daily=sun
New IndMach012.stands bus1=d kv=.48 kw=30 kva=40
New LoadShape.surge npts=4 interval=6 mult=[.5 3 .8 .5]
New IndMach012.stalls bus1=c kv=12.47 kw=60 kva=80 daily=surge
New IndMach012.slips bus1=d kv=.48 kw=30 kva=40 slip=.01 slipoption=fixedslip daily=sun
New Vsource.tie bus1=far.1 phases=1 basekv=7.2 r1=1 x1=5 r0=2 x0=8 daily=kv
New Line.far phases=1 bus1=c.1 bus2=far.1 length=20 units=km r1=1 x1=2
"""
DISPATCHED = """New LoadShape.levels npts=24 interval=1
~ mult=[.5 .5 .5 .6 .6 .7 .8 .9 1 1.1 1.2 1.2 1.1 1 1 1 1.1 1.2 1.3 1.2 1 .8 .6 .5]
New PriceShape.tariff npts=24 interval=1
~ price=[10 10 20 20 30 30 30 40 40 20 20 20 25 25 25 50 50 60 60 20 20 10 10 10]
New Generator.above bus1=c kv=12.47 kw=200 pf=.9 daily=hours dispmode=loadlevel dispvalue=.93
New Generator.peaking bus1=c kv=12.47 kw=200 pf=.9 dispmode=loadlevel dispvalue=.72
New Generator.forced bus1=c kv=12.47 kw=100 pf=.9 dispmode=loadlevel dispvalue=.9 forceon=yes
New Generator.fixed bus1=c kv=12.47 kw=100 pf=.9 dispmode=loadlevel dispvalue=.9 status=fixed daily=sun
New Generator.priced bus1=b kv=12.47 kw=150 pf=.9 dispmode=price dispvalue=25 daily=sun
New Generator.dear bus1=b kv=12.47 kw=150 pf=.9 dispmode=price dispvalue=45
New Generator.burns bus1=b kv=12.47 kw=100 pf=.9 usefuel=yes fuelkwh=900 %fuel=90 %reserve=30
New Generator.burnt bus1=b kv=12.47 kw=100 daily=hours usefuel=yes fuelkwh=900 %fuel=10 model=5
New Generator.both bus1=d kv=.48 kw=50 daily=metered usefuel=yes fuelkwh=700 dispmode=loadlevel dispvalue=.7 model=2
New Generator.holds bus1=d kv=.48 kw=60 daily=hours model=3 maxkvar=20 minkvar=-20 usefuel=yes fuelkwh=400
New Generator.limited bus1=d kv=.48 kw=40 daily=hours model=7 usefuel=yes fuelkwh=100
New Generator.q4 bus1=c kv=12.47 kw=90 pf=.95 daily=reactive model=4
New Generator.q5 bus1=c kv=12.47 kw=90 pf=-.95 daily=metered model=5
New Generator.v3 bus1=c kv=12.47 kw=100 model=3 maxkvar=50 minkvar=-50 vpu=1.01 daily=sun
Set DefaultDaily=levels
Set PriceCurve=tariff
Set GenMult=.8
Set LoadMult=.8
"""
BY_SIGNAL = """New LoadShape.level npts=24 interval=1
~ mult=[.4 .35 .3 .3 .35 .5 .7 .8 .7 .6 .6 .65 .7 .6 .55 .6 .7 .9 1 .95 .8 .7 .6 .5]
New PriceShape.market npts=24 interval=1
~ price=[20 18 17 17 18 22 30 45 40 30 28 25 25 26 28 32 40 60 70 55 40 30 25 22]
Set DefaultDaily=level DefaultYearly=level PriceCurve=market
New Storage.level bus1=c kv=12.47 kwrated=100 kwhrated=300 %stored=50 dispmode=loadlevel dischargetrigger=.8
~ chargetrigger=.4 %charge=50
New Storage.price bus1=d kv=.48 kwrated=100 kwhrated=300 %stored=40 dispmode=price dischargetrigger=39 chargetrigger=19
New Storage.told bus1=c kv=12.47 kwrated=100 kwhrated=300 %stored=40 dispmode=external state=discharging %discharge=20
"""
TAIL = """Set VoltageBases=[115 12.47 .48]
CalcVoltageBases
"""
#: The engine's own day breaks Kirchhoff's law once a tap moved beside a generator of model 3, here by up to 2.7 MW.
STEADY = GENERATORS.replace(" model=3", "")
MASTERS = {
    "loads": LOADS,
    "loads and growth": LOADS + "Set Year=4\nSet LoadMult=.9\n",
    "generators": LOADS + GENERATORS,
    "odd loads": LOADS + ODD_LOADS,
    "machines": LOADS + MACHINES,
    "dispatched generators": LOADS + DISPATCHED,
    "panels": LOADS + PANELS,
    "regulator": LOADS + STEADY + PANELS + CONTROLS.splitlines()[0] + "\n",
    "batteries": LOADS + BATTERIES,
    "batteries by demand and by price": CALM + BY_SIGNAL,
    "batteries and a regulator": LOADS + BATTERIES + CONTROLS.splitlines()[0] + "\n",
    "a source that moves": LOADS + "New LoadShape.bus npts=24 interval=1\n~ mult=[" + "1 .99 1.01 1.02 " * 6 + "]\n"
    "Edit Vsource.source daily=bus\n" + CONTROLS.splitlines()[0] + "\n",
    "all": LOADS + GENERATORS + PANELS + CONTROLS,
}
TOLERANCE = 1e-9


def write(folder: Path, body: str, mode: str) -> tuple[Path, Path]:
    """Write a master, and the same with the mode set."""
    master, ours = folder / "raw.dss", folder / "own.dss"
    master.write_text(HEAD + body + TAIL)
    ours.write_text(HEAD + body + TAIL + f"Set mode={mode}\n")
    return master, ours


def simulate(master: Path, n_steps: int, step_minutes: int, mode: ShapeMode | None = None) -> Simulation:
    """Return a simulation without a device, the feeder's own controls free."""
    feeder = read_feeder(master)
    profiles = follow_loadshapes(network_of(feeder), builtin_profiles(), mode)
    options = SimulationOptions(
        step_minutes=step_minutes, horizon_steps=n_steps, split="all", native_controls=True, tolerance=TOLERANCE
    )
    return Simulation(feeder, {}, profiles, options)


def play_ours(
    master: Path, n_steps: int, step_minutes: int, day: int, mode: ShapeMode | None = None
) -> dict[str, np.ndarray]:
    """Play a day without a device, the feeder's own controls free, as ``referee.play`` gives it."""
    simulation = simulate(master, n_steps, step_minutes, mode)
    simulation.reset(0, np.random.default_rng(0), day=day)
    engine = simulation.circuits[0].engine
    names = [(c, name, handle) for c in CLASSES for name, handle in engine.handles(c).items()]
    reader = PowerReader([handle for _, _, handle in names])
    rows: dict[str, list[complex]] = {f"{c}.{name}".lower(): [] for c, name, _ in names}
    losses, taps = [], {name: [] for name in engine.handles("Transformer")}
    for _ in range(n_steps):
        simulation.step(np.zeros((1, 0)))
        for key, power in zip(rows, reader.read().tolist(), strict=True):
            rows[key].append(power)
        losses.append(float(simulation.snapshot.losses_kw[0]))
        for name, handle in engine.handles("Transformer").items():
            taps[name].append(engine.get_floats(handle, "Transformer", "Taps")[-1])
    simulation.close()
    played = {key: np.array(own) for key, own in rows.items()} | {"losses": np.array(losses)}
    return played | {f"tap.{name}": np.array(own) for name, own in taps.items()}


def kw_of(simulation: Simulation, element: str) -> float:
    """Return what an element delivers [kW]."""
    class_name, _, name = element.partition(".")
    engine = simulation.circuits[0].engine
    return -float(PowerReader([engine.handles(class_name)[name]]).read()[0].real)


_DAYS = [("daily", 15, 0), ("yearly", 60, 0), ("daily", 60, 3)]
#: In duty mode the engine has controls wait.
_IN_DUTY = ("loads", "odd loads", "generators", "machines", "dispatched generators", "panels", "batteries",
            "batteries by demand and by price", "batteries and a regulator", "a source that moves")  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "step_minutes", "day", "name"),
    [(*day, name) for day in _DAYS for name in MASTERS] + [("duty", 30, 1, name) for name in _IN_DUTY],
)
def test_a_day_is_the_one_that_the_engine_plays(
    tmp_path: Path, mode: str, step_minutes: int, day: int, name: str
) -> None:
    master, ours = write(tmp_path, MASTERS[name], mode)
    ours.write_text(f"{master.read_text()}Solve\nSet mode={mode}\n")
    n_steps = 1440 // step_minutes
    own = play_ours(ours, n_steps, step_minutes, day)
    with compiled(master, tolerance=TOLERANCE) as engine:
        engine.command("solve")  # so that its controls start from where ours do
        played = play(engine, mode, n_steps, step_minutes, hour=24 * day)
    differences = {key: float(np.abs(own[key] - played[key]).max()) for key in own}
    size = np.abs(played["vsource.source"]).max()
    assert {key: value for key, value in differences.items() if value > 1e-6 * size} == {}


CONTROLLED = """New Storage.fleet bus1=c kv=12.47 kwrated=200 kwhrated=700 %stored=50
New StorageController.sc element=Line.b terminal=1 modedischarge=peakshave modecharge=time kwtarget=1500
~ timechargetrigger=2 elementlist=[fleet]
"""
CLOCKED = """New Capacitor.bank bus1=c kv=12.47 kvar=600
New CapControl.bank element=Line.b terminal=1 capacitor=bank type=time onsetting=8 offsetting=18
"""
WATTS = """New XYCurve.vw npts=3 xarray=[1.0 1.0 1.03] yarray=[1.0 1.0 0.0]
New InvControl.roofs derlist=[PVSystem.one PVSystem.two] mode=voltwatt voltwatt_curve=vw
"""

DISPATCHING = """New Generator.one bus1=c kv=12.47 kw=500 kvar=100 daily=hours
New Generator.two bus1=d kv=.48 kw=300 pf=.95 daily=reactive model=2
New Generator.plain bus1=b kv=12.47 kw=200 pf=.9
New GenDispatcher.gd element=Line.a terminal=1 kwlimit=2500 kwband=100 kvarlimit=900 genlist=[one two plain]
~ weights=[2 1 1]
New RegControl.sub transformer=sub winding=2 vreg=122 band=2 ptratio=60 maxtapchange=1
"""


@pytest.mark.parametrize("body", [LOADS + CONTROLLED, LOADS + CLOCKED, LOADS + PANELS + WATTS, LOADS + DISPATCHING])
def test_own_controls_act_as_in_the_engines_day(tmp_path: Path, body: str) -> None:
    master, ours = write(tmp_path, body, "daily")
    own = play_ours(ours, 24, 60, 0)
    with compiled(master, tolerance=TOLERANCE) as engine:
        engine.command("solve")
        played = play(engine, "daily", 24, 60)
    size = np.abs(played["vsource.source"]).max()
    assert {key: value for key in own if (value := np.abs(own[key] - played[key]).max()) > 1e-6 * size} == {}


def test_what_a_dispatcher_set_generators_to_belongs_to_the_state(tmp_path: Path) -> None:
    _, ours = write(tmp_path, LOADS + DISPATCHING, "daily")
    feeder = read_feeder(ours)
    profiles = follow_loadshapes(network_of(feeder), builtin_profiles())
    options = SimulationOptions(split="all", horizon_steps=40, native_controls=True)
    simulation = Simulation(feeder, {}, profiles, options)
    played, state = [], None
    for _ in range(2):
        simulation.reset(0, np.random.default_rng(0), day=0)
        played.append([])
        for step in range(40):
            state = simulation.state() if step == 20 else state
            simulation.step(np.zeros((1, 0)))
            played[-1].append(kw_of(simulation, "Generator.one"))
    simulation.restore(state)
    again = []
    for _ in range(20):
        simulation.step(np.zeros((1, 0)))
        again.append(kw_of(simulation, "Generator.one"))
    simulation.close()
    assert np.ptp(played[0]) > 100.0
    assert played[0] == played[1]
    assert again == played[1][20:]


def test_panels_left_to_the_feeder_follow_their_shape_or_the_sun_and_never_shine_at_night(tmp_path: Path) -> None:
    bare = "New PVSystem.bare bus1=c kv=12.47 kva=800 pmpp=900 irradiance=1\n"
    master, _ = write(tmp_path, LOADS + PANELS + bare + CONTROLS, "daily")
    for discover, left in (({"pv": False}, "one two three bare"), ({"max_per_kind": 1}, "one two three")):
        env = powergrid.make(master, discover=discover, split="all")
        env.reset(seed=0, options={"day": 171})
        simulation = env.task.simulation
        delivered = {name: [] for name in left.split()}
        for _ in range(60):
            simulation.step(simulation.neutral())
            for name, own in delivered.items():
                own.append(kw_of(simulation, f"PVSystem.{name}"))
        at_noon = simulation.day_pv_pu[0, 50]
        assert max(max(own[:10]) for own in delivered.values()) < 0.1
        assert delivered["one"][50] == pytest.approx(min(0.95 * 900, 800), rel=1e-3)
        if "bare" in delivered:
            assert delivered["bare"][50] == pytest.approx(900 * at_noon, rel=1e-3)
        env.close()


def test_devices_take_the_sun_of_their_own_shape_and_a_generator_with_one_is_no_fuel_generator(tmp_path: Path) -> None:
    master, _ = write(tmp_path, LOADS + GENERATORS + PANELS, "daily")
    env = powergrid.make(master, split="all")
    devices = env.scenario.devices
    assert {name: devices[name].kind for name in ("gen_farm", "gen_chp", "gen_base", "gen_fixed", "pv_one")} == {
        "gen_farm": "inverter",
        "gen_chp": "inverter",
        "pv_one": "inverter",
        "gen_base": "generator",
        "gen_fixed": "generator",
    }
    env.reset(seed=0, options={"day": 0})
    simulation = env.task.simulation
    sunny = [list(simulation.power_device_names).index(name) for name in ("gen_farm", "gen_chp", "pv_one")]
    delivered = []
    for _ in range(96):
        simulation.step(simulation.neutral())
        delivered.append(simulation.delivered[0, 0, sunny])
    farm, chp, one = np.array(delivered).T
    sun = [0, 0, 0, 0, 0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1, 1, 0.9, 0.8, 0.6, 0.4, 0.2, 0.05, 0, 0, 0, 0, 0]
    nearest = np.rint(np.arange(1, 97) / 4).astype(int) - 1
    np.testing.assert_allclose(farm, 900 * 0.8 * np.array(sun)[nearest], atol=0.5)  # GenMult is 0.8
    np.testing.assert_allclose(one, np.minimum(0.95 * 900 * np.array(sun)[nearest], 800), atol=0.5)
    assert chp[0] == pytest.approx(175, abs=0.5)  # kW themselves: at 00:15 the last of 30 half-hours
    env.close()


def test_a_device_takes_what_its_panels_curves_make_of_its_own_sun(tmp_path: Path) -> None:
    panels = PANELS.replace("%cutin=5 %cutout=5", "%cutin=30 %cutout=10").replace(
        "kvar=10", "kvar=10 %cutin=1 %cutout=1"
    )
    master, ours = write(tmp_path, LOADS + panels, "daily")
    env = powergrid.make(ours, split="all")
    env.reset(seed=0, options={"day": 0})
    simulation = env.task.simulation
    places = [list(simulation.power_device_names).index(name) for name in ("pv_two", "pv_three")]
    delivered = []
    for _ in range(96):
        simulation.step(simulation.neutral())
        delivered.append(simulation.delivered[0, 0, places])
    env.close()
    with compiled(master) as engine:
        played = play(engine, "daily", 96, 15)
    for name, own in zip(("two", "three"), np.array(delivered).T, strict=True):
        np.testing.assert_allclose(own, -played[f"pvsystem.{name}"].real, atol=0.05, err_msg=name)


def test_an_event_of_sun_dims_panels_that_follow_a_shape_of_their_own_too(tmp_path: Path) -> None:
    bare = "New PVSystem.bare bus1=c kv=12.47 kva=800 pmpp=900 irradiance=1 %cutin=1 %cutout=1\n"
    _, ours = write(tmp_path, LOADS + PANELS + bare + CONTROLS, "daily")
    event = {"cloud": {"kind": "pv_step", "factor": 0.25, "at_step": 50, "duration_steps": 2}}
    for discover in ({}, {"pv": False}):
        seen = []
        for events in ({}, event):
            env = powergrid.make(ours, split="all", discover=discover, events=events)
            env.reset(seed=0, options={"day": 171})
            simulation = env.task.simulation
            told = []
            for t in range(54):
                if t == 48:
                    kept = simulation.state()
                simulation.step(simulation.neutral())
                told.append([kw_of(simulation, f"PVSystem.{name}") for name in ("one", "bare")])
            simulation.reset(0, np.random.default_rng(0), 171)
            simulation.restore(kept)
            for t in range(48, 54):
                simulation.step(simulation.neutral())
                np.testing.assert_allclose(
                    [kw_of(simulation, f"PVSystem.{name}") for name in ("one", "bare")], told[t], rtol=1e-6
                )
            env.close()
            seen.append(told)
        plain, clouded = np.array(seen)
        # Of 855 kW of sun the inverter takes 800: a quarter of the sun is more than a quarter of that.
        sun = np.where(plain > 799.0, [855.0, plain.max()], plain)
        np.testing.assert_allclose(clouded[:50], plain[:50], rtol=1e-4, atol=0.05)
        np.testing.assert_allclose(clouded[50:52], 0.25 * sun[50:52], rtol=1e-3)
        np.testing.assert_allclose(clouded[52:], plain[52:], rtol=1e-4, atol=0.05)


def test_a_generator_that_a_scenario_calls_one_gives_no_more_than_its_own_shape_offers(tmp_path: Path) -> None:
    master, _ = write(tmp_path, LOADS + STEADY, "daily")
    devices = {
        "farm": {"kind": "generator", "element": "Generator.farm", "p_min_kw": 100, "ramp_kw_per_min": 30},
        "chp": {"kind": "generator", "element": "Generator.chp", "p_max_kw": 190},
        "base": {"kind": "generator", "element": "Generator.base"},
    }
    env = powergrid.make(master, devices=devices, split="all")
    env.reset(seed=0, options={"day": 0})
    simulation = env.task.simulation
    columns = [list(simulation.power_device_names).index(name) for name in ("farm", "chp", "base")]
    delivered = []
    for _ in range(96):
        simulation.step(np.ones((1, len(simulation.actions))))
        delivered.append(simulation.delivered[0, 0, columns])
    env.close()
    farm, chp, base = np.array(delivered).T
    sun = [0, 0, 0, 0, 0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1, 1, 0.9, 0.8, 0.6, 0.4, 0.2, 0.05, 0, 0, 0, 0, 0]
    offered = 900 * 0.8 * np.array(sun)[np.rint(np.arange(1, 97) / 4).astype(int) - 1]
    assert (farm <= offered + 0.5).all()
    np.testing.assert_allclose(farm[offered < 100], 0.0, atol=0.5)
    np.testing.assert_allclose(farm[46:50], offered[46:50], atol=0.5)  # it has ramped up by noon
    assert chp[0] == pytest.approx(175, abs=0.5)
    assert chp.max() == pytest.approx(190, abs=0.5)
    assert chp[10] == pytest.approx(60, abs=0.5)
    np.testing.assert_allclose(base, 200, atol=0.5)


def test_native_baseline_is_the_engines_day_though_agents_own_panels_batteries_and_generators(tmp_path: Path) -> None:
    regulator = CONTROLS.splitlines()[0] + "\n"
    master, ours = write(tmp_path, LOADS + STEADY + PANELS + BATTERIES + regulator, "daily")
    scenario = powergrid.load_scenario(ours, {"split": "all", "solver.tolerance": TOLERANCE})
    assert len(scenario.devices) == 16
    changes = BASELINES["native"].overrides(scenario)
    devices = scenario.to_dict()["devices"]
    merged = {name: spec | dict(changes["devices"].get(name, {})) for name, spec in devices.items()}
    changed = powergrid.load_scenario(scenario.to_dict() | {"native_controls": True, "devices": merged})
    simulation = changed.simulate()
    simulation.reset(0, np.random.default_rng(0), day=0)
    engine = simulation.circuits[0].engine
    names = [(c, name, handle) for c in CLASSES for name, handle in engine.handles(c).items()]
    reader, rows = PowerReader([handle for _, _, handle in names]), []
    start = engine.get_floats(engine.handles("Transformer")["sub"], "Transformer", "Taps")[-1]
    for _ in range(96):
        simulation.step(simulation.neutral())
        rows.append(reader.read().copy())
    simulation.close()
    with compiled(master, tolerance=TOLERANCE) as own:
        played = play(own, "daily", 96, 15, taps={"sub": float(start)})
    size = np.abs(played["vsource.source"]).max()
    for (class_name, name, _), power in zip(names, np.array(rows).T, strict=True):
        expected = played[f"{class_name}.{name}".lower()]
        np.testing.assert_allclose(power, expected, atol=1e-6 * size, rtol=0, err_msg=f"{class_name}.{name}")


def test_batteries_left_to_the_feeder_and_those_of_agents_do_not_touch_each_other(tmp_path: Path) -> None:
    master, ours = write(tmp_path, LOADS + BATTERIES, "daily")
    env = powergrid.make(ours, discover={"storage": ["triggered", "idle"]}, split="all")
    env.reset(seed=0, options={"day": 0})
    simulation = env.task.simulation
    asked = simulation.neutral()
    asked[0, [i for i, a in enumerate(simulation.actions) if a.name == "p_kw"]] = 0.4
    follows, agents, set_to = [], [], []
    for _ in range(40):
        simulation.step(asked)
        follows.append(kw_of(simulation, "Storage.follows"))
        agents.append(simulation.delivered[0, 0].copy())
        set_to.append(simulation.setpoints[0, 0].copy())
    env.close()
    np.testing.assert_allclose(agents, set_to, atol=1e-3)
    assert np.abs(set_to[0]).min() > 10.0
    with compiled(master) as engine:
        played = play(engine, "daily", 40, 15)
    np.testing.assert_allclose(follows, -played["storage.follows"].real, atol=0.05)


@pytest.mark.parametrize("mode", ["daily", "yearly"])
def test_a_mode_that_the_scenario_says_counts_for_multipliers_too(tmp_path: Path, mode: ShapeMode) -> None:
    master, _ = write(tmp_path, MASTERS["loads and growth"], mode)
    own = play_ours(master, 24, 60, 0, mode)
    with compiled(master, tolerance=TOLERANCE) as engine:
        played = play(engine, mode, 24, 60)
    size = np.abs(played["vsource.source"]).max()
    assert {key: value for key in own if (value := np.abs(own[key] - played[key]).max()) > 1e-6 * size} == {}


def test_batteries_that_no_shape_leads_begin_as_compiled_and_go_on_from_a_state_after_they_were_spent(
    tmp_path: Path,
) -> None:
    # The first level is at a trigger, so that how the engine compiled them counts; one is spent in the tenth hour.
    spent = "New Storage.spent bus1=c kv=12.47 kwrated=300 kwhrated=900 dispmode=external state=discharging"
    master, ours = write(tmp_path, CALM + BY_SIGNAL + f"{spent} %discharge=20\n", "daily")
    with compiled(master, tolerance=TOLERANCE) as engine:
        played = play(engine, "daily", 24, 60)["vsource.source"].copy()
    simulation = simulate(ours, 24, 60)

    def go_on(n_steps: int) -> np.ndarray:
        found = []
        for _ in range(n_steps):
            simulation.step(np.zeros((1, 0)))
            found.append(-complex(simulation.snapshot.source_kva[0].sum()))
        return np.array(found)

    for _ in range(2):
        simulation.reset(0, np.random.default_rng(0), day=0)
        first = go_on(9)
        state, then = simulation.state(), go_on(15)
        assert np.abs(np.append(first, then) - played).max() < 1e-6 * np.abs(played).max()
    simulation.restore(state)
    np.testing.assert_array_equal(go_on(15), then)
    simulation.close()


@pytest.mark.parametrize("body", [STEADY + PANELS + BATTERIES, DISPATCHED, MACHINES])
def test_background_is_part_of_a_state(tmp_path: Path, body: str) -> None:
    _, ours = write(tmp_path, LOADS + body, "daily")
    feeder = read_feeder(ours)
    profiles = follow_loadshapes(network_of(feeder), builtin_profiles())
    simulation = Simulation(feeder, {}, profiles, SimulationOptions(split="all", horizon_steps=20), n_envs=2)
    simulation.reset_all([0, 1], [np.random.default_rng(0), np.random.default_rng(1)])
    for _ in range(12):
        simulation.step(np.zeros((2, 0)))
    state = simulation.state()
    simulation.step(np.zeros((2, 0)))
    source = simulation.snapshot.source_kva.copy()
    simulation.reset_all([0, 1], [np.random.default_rng(2), np.random.default_rng(3)])
    simulation.restore(state)
    simulation.step(np.zeros((2, 0)))
    np.testing.assert_array_equal(simulation.snapshot.source_kva, source)
    simulation.close()
