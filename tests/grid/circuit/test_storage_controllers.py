"""StorageControllers: every pair of modes is played as in the engine's own day, with all else that follows shapes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.devices.storage import StorageSpec
from powergrid.grid.engine import PowerReader
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.options import SimulationOptions
from powergrid.grid.profiles.profiles import builtin_profiles, follow_loadshapes
from powergrid.grid.simulation import Simulation
from tests.grid import test_as_opendss_plays_it as day
from tests.grid.circuit.test_control_memory import EXP, INV, seen
from tests.grid.referee import CLASSES, compiled, play

SWING = """New LoadShape.lead npts=24 interval=1
~ mult=[-.5 -.5 -.8 -1 -1 -.6 0 .2 .4 .8 1 1 1 .5 .3 .2 0 0 -.3 -.3 0 .9 .9 -.9]
New LoadShape.other npts=48 interval=1 mult=[0 -.4 -.4 .4 -.4 -.2 .2 .2 .3 .6 -.6 .6]
"""
FLEET = """New Storage.fleet bus1=c kv=12.47 kwrated=300 kwhrated=1200 %stored=60
New Storage.second bus1=d kv=.48 kwrated=200 kwhrated=800 %stored=60
New StorageController.sc element=Line.a terminal=1 elementlist=[fleet second] %kwband=5 """
DISCHARGE = {
    "peakshave": "modedischarge=peakshave kwtarget=3000",
    "follow": "modedischarge=follow timedischargetrigger=12 kwtarget=2000",
    "support": "modedischarge=support kwtarget=2000",
    "loadshape": "modedischarge=loadshape daily=lead",
    "time": "modedischarge=time timedischargetrigger=17 %ratekw=40",
    "schedule": "modedischarge=schedule timedischargetrigger=16 tup=.5 tflat=2 tdn=.5 %ratekw=60",
    "currents": "modedischarge=i-peakshave kwtarget=.14",
}
CHARGE = {
    "loadshape": "modecharge=loadshape",
    "time": "modecharge=time timechargetrigger=2 %ratecharge=50",
    "valleys": "modecharge=peakshavelow kwtargetlow=1500",
    "currents": "modecharge=i-peakshavelow kwtargetlow=.07",
}
FEW = "".join(line for line in day.LOADS.splitlines(keepends=True) if "Load.town" in line or "Load.mill" in line)


def differences(
    folder: Path, body: str, mode: str, n_steps: int, step_minutes: int, *, solve: bool
) -> dict[str, float]:
    """Return how far each element is from the engine's own day, of those that are."""
    master, ours = day.write(folder, body, mode)
    said = "Solve\n" if solve else ""
    ours.write_text(f"{master.read_text()}{said}Set mode={mode}\n")
    own = day.play_ours(ours, n_steps, step_minutes, 0)
    with compiled(master, tolerance=day.TOLERANCE) as engine:
        if solve:
            engine.command("solve")
        played = play(engine, mode, n_steps, step_minutes)
    assert np.ptp(played["storage.fleet"].real) > 50.0
    size = np.abs(played["vsource.source"]).max()
    return {key: value for key in own if (value := np.abs(own[key] - played[key]).max()) > 1e-6 * size}


@pytest.mark.parametrize(("discharge", "charge"), list(itertools.product(DISCHARGE, CHARGE)))
def test_every_pair_of_modes_is_played_as_in_the_engines_day(tmp_path: Path, discharge: str, charge: str) -> None:
    body = f"{FEW}{SWING}{FLEET}{DISCHARGE[discharge]} {CHARGE[charge]}\n"
    assert differences(tmp_path, body, "daily", 24, 60, solve=True) == {}


SHAPES = FLEET + "modedischarge=loadshape modecharge=loadshape "


@pytest.mark.parametrize(
    ("mode", "step_minutes", "body"),
    [
        ("yearly", 60, FEW + SWING + SHAPES + "daily=lead yearly=other\n"),
        ("duty", 30, FEW + SWING + SHAPES + "daily=lead duty=other\n"),
        ("daily", 15, day.CALM + day.STEADY + day.PANELS + day.BATTERIES + SWING + SHAPES + "daily=lead\n"),
        (
            "yearly",
            60,
            day.CALM + day.MACHINES + day.CONTROLS.splitlines()[0] + "\n" + SWING + SHAPES + "daily=other\n",
        ),
        ("daily", 60, FEW + SWING + SHAPES + "yearly=other %ratekw=70\n"),
        ("daily", 60, day.LOADS + day.CONTROLS + SWING + SHAPES + "daily=other\n"),
    ],
)
def test_a_controllers_own_shape_leads_its_fleet_alone(tmp_path: Path, mode: str, step_minutes: int, body: str) -> None:
    n_steps, solve = 36 if mode == "yearly" else 24, "RegControl" in body  # whose taps start where the file leaves them
    assert differences(tmp_path, body, mode, n_steps, step_minutes, solve=solve) == {}


def test_a_fleet_led_by_a_shape_plays_the_same_again_and_from_a_restored_state(tmp_path: Path) -> None:
    _, ours = day.write(tmp_path, FEW + SWING + SHAPES + "daily=lead\n", "daily")
    simulation = day.simulate(ours, 24, 60)
    played = []
    for _ in range(2):
        simulation.reset(0, np.random.default_rng(0), 1)
        first = seen(simulation, 13)
        kept = simulation.state()
        played.append(first + seen(simulation, 11))
    simulation.restore(kept)
    assert played[0] == played[1]
    assert seen(simulation, 11) == played[0][13:]
    simulation.close()


# -- devices that a controller leads

#: What a fleet's energy is here: the engine's efficiencies, and nothing for idling.
LED = FLEET.replace(" %stored=60", " %stored=60 %idlingkw=0")
LARGE = LED.replace("kwhrated=1200", "kwhrated=12000").replace("kwhrated=800", "kwhrated=8000")


def lead(folder: Path, body: str) -> tuple[Path, Simulation]:
    """Return a master and a simulation with its batteries as devices under its StorageController."""
    master, ours = day.write(folder, body, "daily")
    ours.write_text(master.read_text() + "Solve\nSet mode=daily\n")
    feeder = read_feeder(ours)
    keys = {"control": "opendss", "soc_min": 0.2, "soc_max": 1.0, "soc_initial": 0.6}
    keys |= {"kind": "storage", "eta_charge": 0.9, "eta_discharge": 0.9}
    devices = {name: StorageSpec(element=f"Storage.{name}", **keys) for name in ("fleet", "second")}
    profiles = follow_loadshapes(network_of(feeder), builtin_profiles())
    options = SimulationOptions(
        step_minutes=60, horizon_steps=24, split="all", native_controls=True, tolerance=day.TOLERANCE
    )
    simulation = Simulation(feeder, devices, profiles, options)
    simulation.reset(0, np.random.default_rng(0), 0)
    return master, simulation


def compare(folder: Path, body: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return by how much each element differs from the engine's day at each step, and the states of charge there."""
    master, simulation = lead(folder, body)
    handles = {f"{c}.{x}".lower(): h for c in CLASSES for x, h in simulation.circuits[0].engine.handles(c).items()}
    reader, powers, soc = PowerReader(list(handles.values())), [], []
    for _ in range(24):
        simulation.step(simulation.neutral())
        powers.append(reader.read().copy())
        soc.append(simulation.fleets[0].soc[0].copy())
    simulation.close()
    with compiled(master, tolerance=day.TOLERANCE) as engine:
        engine.command("solve")
        played = play(engine, "daily", 24, 60)
    off = zip(handles, np.abs(np.array(powers).T - np.array([played[key] for key in handles])), strict=True)
    size = np.abs(played["vsource.source"]).max()
    return {key: value / size for key, value in off}, np.array(soc)


@pytest.mark.parametrize(
    ("discharge", "charge"),
    [
        ("peakshave", "time"),
        ("follow", "valleys"),
        ("loadshape", "currents"),
        ("time", "loadshape"),
        ("schedule", "time"),
    ],
)
def test_devices_that_a_controller_leads_do_as_in_the_engines_day(tmp_path: Path, discharge: str, charge: str) -> None:
    off, soc = compare(tmp_path, f"{FEW}{SWING}{LARGE}{DISCHARGE[discharge]} {CHARGE[charge]}\n")
    assert max(map(np.max, off.values())) < 1e-6
    assert np.ptp(soc, axis=0).min() > 0.02


@pytest.mark.parametrize("panels", [INV + "combimode=vv_vw vvc_curve1=vv voltwatt_curve=vw\n", EXP + "\n"])
def test_other_controls_go_on_beside_devices_that_a_controller_leads(tmp_path: Path, panels: str) -> None:
    off, _ = compare(tmp_path, day.CALM + panels + LARGE + "modedischarge=peakshave kwtarget=3000 modecharge=time\n")
    assert max(map(np.max, off.values())) < 1e-6


@pytest.mark.parametrize("charge", ["time", "valleys"])
def test_devices_that_a_controller_leads_give_only_what_they_have(tmp_path: Path, charge: str) -> None:
    off, soc = compare(tmp_path, f"{FEW}{SWING}{LED}{DISCHARGE['peakshave']} {CHARGE[charge]}\n")
    # The engine ends a step at the reserve or full whatever was delivered in it; ours delivers what there is.
    reached = np.isclose(soc, 0.2, atol=1e-9) | np.isclose(soc, 1.0, atol=1e-9)
    came = (reached & ~np.vstack([np.zeros((1, 2), dtype=bool), reached[:-1]])).any(axis=1)
    assert 2 <= came.sum() <= 6
    assert max(value[~came].max() for value in off.values()) < 1e-6
    assert soc.min() > 0.2 - 1e-9


def test_devices_that_a_controller_leads_play_the_same_again_and_from_a_restored_state(tmp_path: Path) -> None:
    body = day.CALM + INV + "mode=voltvar vvc_curve1=vv\n" + SWING + LED + DISCHARGE["peakshave"] + " modecharge=time\n"
    _, simulation = lead(tmp_path, body)
    first = seen(simulation, 21)  # the batteries were held in between
    kept = simulation.state()
    whole = first + seen(simulation, 3)
    simulation.restore(kept)
    assert seen(simulation, 3) == whole[21:]
    simulation.reset(0, np.random.default_rng(0), 0)
    assert seen(simulation, 24) == whole
    simulation.close()
