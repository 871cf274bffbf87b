"""What the feeder's own controls remember from step to step: as in the engine's own day, begun anew, put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.engine import PowerReader
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.profiles import builtin_profiles, follow_loadshapes
from powergrid.grid.simulation import Simulation
from tests.grid import test_as_opendss_plays_it as day
from tests.grid.referee import CLASSES, compiled, play

PANELS = """New XYCurve.vv npts=4 xarray=[.5 .9 1.1 1.5] yarray=[.44 .4 -.4 -.44]
New XYCurve.vw npts=3 xarray=[.9 .97 1.2] yarray=[1 1 .2]
New XYCurve.wp npts=2 xarray=[0 1] yarray=[1 .92]
New XYCurve.wv npts=2 xarray=[0 1] yarray=[0 -.3]
New PVSystem.one bus1=c kv=12.47 kva=260 pmpp=220 irradiance=.95 daily=sun
New PVSystem.two bus1=d kv=.48 kva=110 pmpp=80 irradiance=1 daily=sun pf=.97 %cutin=1 %cutout=1
New PVSystem.free phases=1 bus1=d.3 kv=.277 kva=50 pmpp=40 irradiance=.8 daily=sun kvar=10
"""
INV = PANELS + "New InvControl.i derlist=[PVSystem.one PVSystem.two] "
EXP = PANELS + "New ExpControl.e derlist=[PVSystem.one PVSystem.two] "
FLEET = """New Storage.fleet bus1=c kv=12.47 kwrated=200 kwhrated=700 %stored=50
New Storage.second bus1=d kv=.48 kwrated=100 kwhrated=200 %stored=90
New StorageController.sc element=Line.b terminal=1 """
LIST = "elementlist=[fleet second]"
TURNING = (
    PANELS.replace("kva=260 pmpp=220", "kva=9000 pmpp=8000")
    + "New RegControl.sub transformer=sub winding=2 vreg=122 band=2 ptratio=60 maxtapchange=1 revthreshold=50 "
)
BODIES = {
    "volt-var": INV + "mode=voltvar vvc_curve1=vv",
    "volt-var of all, and a regulator": PANELS + day.CONTROLS.splitlines()[0] + "\nNew InvControl.i mode=voltvar "
    "vvc_curve1=vv",
    "volt-watt": INV + "mode=voltwatt voltwatt_curve=vw",
    "both": INV + "combimode=vv_vw vvc_curve1=vv voltwatt_curve=vw",
    "volt-watt, limiting at first": "New XYCurve.low npts=4 xarray=[0 .9 1.04 1.5] yarray=[1 1 .2 .2]\n"
    + INV
    + "mode=voltwatt voltwatt_curve=low voltwattyaxis=pmpppu",
    "watt-pf": INV + "mode=wattpf wattpf_curve=wp",
    "watt-var": INV + "mode=wattvar wattvar_curve=wv",
    "fast current": INV + "combimode=vv_drc vvc_curve1=vv dynreacavgwindowlen=3600s",
    "mean voltage": INV + "mode=voltvar vvc_curve1=vv voltage_curvex_ref=avg avgwindowlen=7200s",
    "low pass": INV + "mode=voltvar vvc_curve1=vv rateofchangemode=lpf lpftau=1800",
    "rise and fall": INV + "mode=voltvar vvc_curve1=vv rateofchangemode=risefall risefalllimit=.0001",
    "voltage": INV + "mode=avr vsetpoint=1.0",
    "exponential": EXP,
    "exponential, kvar first": EXP + "preferq=yes vregtau=300 tresponse=30",
    "exponential, sought": EXP + "vreg=0",
    "peaks": FLEET + "modedischarge=peakshave modecharge=time kwtarget=1500 timechargetrigger=2 " + LIST,
    "peaks of all": FLEET + "modedischarge=peakshave modecharge=time kwtarget=1500 timechargetrigger=2",
    "valleys": FLEET + "modedischarge=peakshave modecharge=peakshavelow kwtarget=1500 kwtargetlow=900 " + LIST,
    "valleys, weighed": FLEET + "modedischarge=peakshave modecharge=peakshavelow kwtarget=1500 kwtargetlow=900 "
    "weights=[3 1] " + LIST,
    "currents": FLEET + "modedischarge=i-peakshave modecharge=i-peakshavelow kwtarget=.085 kwtargetlow=.05 " + LIST,
    "clock": FLEET + "modedischarge=time modecharge=time timedischargetrigger=8 timechargetrigger=2 " + LIST,
    "schedule": FLEET + "modedischarge=schedule modecharge=time timedischargetrigger=8 timechargetrigger=2 tup=.5 "
    "tflat=1 tdn=.5 " + LIST,
    "follow": FLEET + "modedischarge=follow modecharge=time timedischargetrigger=8 timechargetrigger=2 kwtarget=1700 "
    "elementlist=[fleet]",
    "support": FLEET + "modedischarge=support modecharge=time timechargetrigger=2 kwtarget=-1500 elementlist=[fleet]",
    "volt-var of a battery": PANELS + day.BATTERIES.split("New Storage")[0] + "New Storage.follows bus1=c kv=12.47 "
    "kwrated=200 kva=250 kwhrated=700 %stored=50 dispmode=follow daily=swing\n"
    "New InvControl.i derlist=[Storage.follows] mode=voltvar vvc_curve1=vv",
    "reverse": TURNING + "reversible=yes revvreg=120 revband=3",
    "neutral": TURNING + "reversible=yes revneutral=yes",
    "cogeneration": TURNING + "cogen=yes revvreg=118 revband=2",
    "capacitor by its signal": "New LoadShape.signal npts=24 interval=1 "
    "mult=[1 1 0 0 0 1 1 1 1 1 1 0 0 0 0 1 1 0 0 0 0 1 0 1]\n"
    "New Capacitor.led bus1=c kv=12.47 kvar=300 numsteps=2 states=[0 0]\n"
    "New CapControl.led capacitor=led element=Line.b terminal=1 type=follow controlsignal=signal",
}


def write(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a master, and the same with the solve and the mode."""
    master, ours = day.write(folder, day.CALM + BODIES[name] + "\n", "daily")
    ours.write_text(f"{master.read_text()}Solve\nSet mode=daily\n")
    return master, ours


@pytest.mark.parametrize("step_minutes", [15, 60])
@pytest.mark.parametrize("name", BODIES)
def test_controls_go_from_step_to_step_as_in_the_engines_day(tmp_path: Path, name: str, step_minutes: int) -> None:
    master, ours = write(tmp_path, name)
    n_steps = 1440 // step_minutes
    own = day.play_ours(ours, n_steps, step_minutes, 0)
    with compiled(master, tolerance=day.TOLERANCE) as engine:
        engine.command("solve")
        played = play(engine, "daily", n_steps, step_minutes)
    size = np.abs(played["vsource.source"]).max()
    assert {key: value for key in own if (value := np.abs(own[key] - played[key]).max()) > 1e-6 * size} == {}


def seen(simulation: Simulation, n_steps: int) -> list[tuple[bytes, bytes]]:
    found = []
    for _ in range(n_steps):
        simulation.step(simulation.neutral())
        found.append((simulation.snapshot.v.tobytes(), simulation.snapshot.source_kva.tobytes()))
    return found


@pytest.mark.parametrize(
    "name", ["both", "volt-watt, limiting at first", "exponential", "peaks", "neutral", "capacitor by its signal"]
)
def test_episodes_and_restored_states_are_the_same_bit_for_bit(tmp_path: Path, name: str) -> None:
    feeder = read_feeder(write(tmp_path, name)[1])
    profiles = follow_loadshapes(network_of(feeder), builtin_profiles())
    options = SimulationOptions(step_minutes=60, horizon_steps=24, split="all", native_controls=True)
    one, other = (Simulation(feeder, {}, profiles, options) for _ in range(2))
    one.reset(0, np.random.default_rng(0), 3)
    whole = seen(one, 24)
    one.reset(0, np.random.default_rng(0), 3)
    first = seen(one, 14)
    kept = one.state()
    assert first + seen(one, 10) == whole
    other.reset(0, np.random.default_rng(0), 50)
    seen(other, 7)
    for simulation in (one, other):
        simulation.restore(kept)
        assert seen(simulation, 10) == whole[14:]
        simulation.close()


WAITING = """New RegControl.sub transformer=sub winding=2 vreg=121 band=1 ptratio=60 delay=5400
~ tapdelay=10 maxtapchange=1
New Capacitor.bank bus1=c kv=12.47 kvar=600
New CapControl.bank element=Line.b terminal=1 capacitor=bank type=kvar onsetting=150
~ offsetting=-225 ptratio=1 ctratio=1 delay=7200 delayoff=3600 deadtime=7200
New Capacitor.other bus1=b kv=12.47 kvar=300
New CapControl.other element=Line.a terminal=1 capacitor=other type=time onsetting=8 offsetting=18 delay=1800
Set ControlMode=time
"""


def delivered(simulation: Simulation, n_steps: int) -> np.ndarray:
    """Return what all elements draw at each step [kVA], and where transformers stand."""
    engine = simulation.circuits[0].engine
    reader = PowerReader([handle for c in CLASSES for handle in engine.handles(c).values()])
    found = []
    for _ in range(n_steps):
        simulation.step(simulation.neutral())
        taps = [engine.get_floats(h, "Transformer", "Taps")[-1] for h in engine.handles("Transformer").values()]
        found.append([*reader.read().tolist(), *taps])
    return np.array(found)


# Generators that say no kvar are given some all the same; what the others wait for is due beside what they do at once.
DISPATCHED = """New Generator.g bus1=c kv=12.47 kw=200 pf=1 daily=reactive
New Generator.h bus1=b kv=12.47 kw=200 pf=1
New GenDispatcher.gd element=Line.a kwlimit=3600 kwband=50 kvarlimit=1500 genlist=(g h) weights=(1 2)
"""
# The one opens and closes in turn all day, the other melts after some hours.
PROTECTED = """New Relay.r monitoredobj=Line.b type=current phasetrip=95 groundtrip=2000 delay=5400
~ recloseintervals=(3000 5000)
New TCC_Curve.slow npts=3 c_array=[1 2 10] t_array=[9000 1500 100]
New Transformer.melts windings=2 buses=(b e) kvs=(12.47 .48) kvas=(500 500) xhl=5
New Load.melts bus1=e kv=.48 kw=300 kvar=100 daily=hours
New Fuse.melts monitoredobj=Transformer.melts fusecurve=slow ratedcurrent=7
"""


@pytest.mark.parametrize(
    ("step_minutes", "more"),
    [(15, INV + "mode=voltvar vvc_curve1=vv\n"), (60, ""), (60, DISPATCHED), (15, PROTECTED)],
    ids=["with panels", "by the hour", "dispatched", "protected"],
)
def test_delays_of_controls_that_wait_pass_from_step_to_step(tmp_path: Path, step_minutes: int, more: str) -> None:
    master, ours = day.write(tmp_path, day.CALM + more + WAITING, "daily")
    n_steps = 2160 // step_minutes
    simulation = day.simulate(ours, n_steps, step_minutes)
    simulation.reset(0, np.random.default_rng(0), 0)
    engine = simulation.circuits[0].engine
    starts = {
        name: float(engine.get_floats(h, "Transformer", "Taps")[-1])
        for name, h in engine.handles("Transformer").items()
    }
    on = {name: engine.get_text(h, "Capacitor", "States") for name, h in engine.handles("Capacitor").items()}
    dispatched = simulation.state()["circuits"][0].get("dispatched", np.zeros((2, 0)))
    own = delivered(simulation, n_steps)
    with compiled(master, tolerance=day.TOLERANCE) as alone:
        for name, (kw, kvar) in zip(alone.handles("Generator"), dispatched.T.tolist(), strict=True):
            alone.command(f"edit Generator.{name} kw={kw!r} kvar={kvar!r}")
        for name, states in on.items():
            alone.command(f"edit Capacitor.{name} states={states}")
        rows = play(alone, "daily", n_steps, step_minutes, taps=starts)
    played = np.array([rows[key] for key in rows if key not in ("v", "losses")]).T
    size = np.abs(rows["vsource.source"]).max()
    assert np.abs(own - played).max() < 1e-6 * size
    assert np.ptp(own[:, [key.startswith("tap.sub") for key in rows if key not in ("v", "losses")]].real) > 0.005
    for later in (40, 3):  # what was opened in an episode is unknown in the next, of whatever day
        simulation.reset(0, np.random.default_rng(0), later)
        delivered(simulation, 7)
    simulation.reset(0, np.random.default_rng(0), 0)
    first = delivered(simulation, n_steps // 2)
    kept = simulation.state()
    assert np.array_equal(np.vstack([first, delivered(simulation, n_steps - n_steps // 2)]), own)
    simulation.restore(kept)
    assert np.array_equal(delivered(simulation, n_steps - n_steps // 2), own[n_steps // 2 :])
    simulation.close()
