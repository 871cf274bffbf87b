"""StorageControllers: every pair of modes is played as in the engine's own day, with all else that follows shapes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.grid import test_as_opendss_plays_it as day
from tests.grid.circuit.test_control_memory import seen
from tests.grid.referee import compiled, play

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
