"""Taps of transformers that no regulator control moves: an agent's tap is the tap that a hand sets in OpenDSS."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError
from powergrid.evaluation import RuleBased
from powergrid.evaluation.baselines import leave_to_feeder
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.compile import compile_feeder
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.simulation import Simulation
from powergrid.scenario import load_scenario

# A substation transformer with a tap range of its own, a step-down, an autotransformer, and what is no tap changer:
#
#   src --sub (115/12.47, winding 1)-- a --l1-- b --step (12.47/4.16)-- c --svc-- d (480 V)
#                                               \--auto (12.47/4.16)-- e      b --vr (12.47/12.47)-- f --ctl-- g
FEEDER = """
Clear
New Circuit.tapped basekv=115 bus1=src pu=1.0 mvasc3=5000 mvasc1=5000
New Transformer.sub phases=3 windings=2 buses=(src a) conns=(delta wye) kvs=(115 12.47) kvas=(9000 9000) xhl=7
~ wdg=1 mintap=0.85 maxtap=1.05 numtaps=16 tap=0.975
New Line.l1 bus1=a bus2=b length=3 units=km r1=0.2 x1=0.4 r0=0.5 x0=1.1
New Transformer.step phases=3 windings=2 buses=(b c) conns=(wye wye) kvs=(12.47 4.16) kvas=(2000 2000) xhl=6
New Transformer.svc phases=3 windings=2 buses=(c d) conns=(wye wye) kvs=(4.16 0.48) kvas=(500 500) xhl=4 wdg=2 tap=1.025
New AutoTrans.auto phases=3 windings=2 buses=(b e) conns=(series wye) kvs=(12.47 4.16) kvas=(2000 2000) xhx=4
New Transformer.vr phases=3 windings=2 buses=(b f) conns=(wye wye) kvs=(12.47 12.47) kvas=(4000 4000) xhl=0.1
New Transformer.ctl phases=3 windings=2 buses=(f g) conns=(wye wye) kvs=(12.47 12.47) kvas=(4000 4000) xhl=0.1
New RegControl.ctl transformer=ctl winding=2 vreg=121 band=2 ptratio=60
New Load.c bus1=c kv=4.16 kw=700 kvar=200
New Load.d bus1=d kv=0.48 kw=200 kvar=60
New Load.e bus1=e kv=4.16 kw=300 kvar=100
New Load.g bus1=g kv=12.47 kw=1500 kvar=500
Set VoltageBases=[115 12.47 4.16 0.48]
CalcVoltageBases
"""
TIGHT = {"tolerance": 1e-11, "max_iterations": 1000}


@pytest.fixture
def master(tmp_path: Path) -> Path:
    path = tmp_path / "tapped.dss"
    path.write_text(FEEDER)
    return path


def scenario(master: Path, devices: dict[str, Any], **keys: Any) -> dict[str, Any]:
    agents = {"A": {"devices": list(devices), "zone": {"downstream_of": "a"}, "pcc": "a"}}
    return {"name": "tapped", "feeder": str(master), "devices": devices, "agents": agents, "solver": TIGHT} | keys


def tap(element: str, **keys: Any) -> dict[str, Any]:
    return {"kind": "regulator", "element": element} | keys


def simulate(master: Path, devices: dict[str, Any], **keys: Any) -> Simulation:
    simulation = load_scenario(scenario(master, devices, **keys)).simulate()
    simulation.reset(0, np.random.default_rng(0), day=20)
    return simulation


def by_hand(master: Path, simulation: Simulation, *commands: str) -> np.ndarray:
    """Solve the present demand in an engine of its own, with text commands for taps."""
    engine = Engine()
    try:
        compile_feeder(read_feeder(master), engine)
        engine.prepare(tolerance=1e-11, max_iterations=1000)
        step = max(int(simulation.step_index[0]) - 1, 0)
        for i, name in enumerate(simulation.network.loads.names):
            kw, kvar = simulation.day_load_kw[0, step, i], simulation.day_load_kvar[0, step, i]
            engine.command(f"edit load.{name} kw={float(kw)!r} kvar={float(kvar)!r}")
        for command in commands:
            engine.command(command)
        assert engine.solve()
        n = len(simulation.network.nodes)
        voltages: np.ndarray = np.abs(engine.voltages(n)[1:]) / simulation.network.v_base
        return voltages
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("element", "keys", "winding", "tap_pu"),
    [
        ("Transformer.sub", {}, 1, lambda n: 0.95 + 0.0125 * n),
        ("Transformer.sub", {"winding": 2}, 2, lambda n: 1.0 + 0.00625 * n),
        ("transformer.STEP", {}, 2, lambda n: 1.0 + 0.00625 * n),
        ("Transformer.svc", {}, 2, lambda n: 1.0 + 0.00625 * n),
        ("AutoTrans.auto", {"winding": 2}, 2, lambda n: 1.0 + 0.00625 * n),
        ("Transformer.ctl", {"winding": 1}, 1, lambda n: 1.0 + 0.00625 * n),
    ],
)
def test_tap_of_an_agent_gives_the_voltages_of_a_tap_set_by_hand(
    master: Path, element: str, keys: dict[str, Any], winding: int, tap_pu: Any
) -> None:
    simulation = simulate(master, {"t": tap(element, **keys)})
    own = int(simulation.circuits[0].switchgear.read_taps()[0])  # the RegControl's, which stays
    spec = simulation.devices["t"]
    before = simulation.snapshot.v_pu[0].copy()
    for position in (spec.tap_min, spec.tap_max, 3, spec.tap_initial):
        simulation.step(np.array([[float(position - spec.tap_min)]]))
        command = f"edit {element} wdg={winding} tap={tap_pu(position)!r}"
        expected = by_hand(master, simulation, f"edit transformer.ctl wdg=2 tap={1 + 0.00625 * own!r}", command)
        np.testing.assert_allclose(simulation.snapshot.v_pu[0], expected, atol=1e-9)
        if position == spec.tap_max:
            assert np.abs(simulation.snapshot.v_pu[0] - before).max() > 0.02
    simulation.close()


def test_tap_range_and_start_of_a_winding_are_its_own(master: Path) -> None:
    simulation = simulate(master, {"t": tap("Transformer.sub"), "c": tap("RegControl.ctl")})
    spec = simulation.devices["t"]
    assert (spec.tap_min, spec.tap_max, spec.tap_initial) == (-8, 8, 2)  # 0.95 + 2 * 0.0125 = 0.975
    assert [a.n for a in simulation.actions] == [17, 33]
    simulation.close()


def test_feeder_with_an_idle_tap_changer_plays_bit_for_bit_as_without(master: Path) -> None:
    plain = simulate(master, {"c": tap("RegControl.ctl")})
    tapped = simulate(master, {"c": tap("RegControl.ctl"), "t": tap("Transformer.sub"), "v": tap("Transformer.vr")})
    rng = np.random.default_rng(3)
    for _ in range(20):
        position = float(rng.integers(33))
        plain.step(np.array([[position]]))
        action = tapped.neutral()
        action[0, 0] = position
        tapped.step(action)
        assert plain.snapshot.v.tobytes() == tapped.snapshot.v.tobytes()
        assert plain.snapshot.losses_kw.tobytes() == tapped.snapshot.losses_kw.tobytes()
    plain.close()
    tapped.close()


def test_reset_and_restored_states_put_the_tap_back(master: Path) -> None:
    simulation = simulate(master, {"t": tap("Transformer.sub", tap_initial=-3)})
    first = simulation.snapshot.v.copy()
    simulation.step(np.array([[16.0]]))
    assert not np.array_equal(first, simulation.snapshot.v)
    simulation.reset(0, np.random.default_rng(0), day=20)
    assert simulation.snapshot.v.tobytes() == first.tobytes()
    assert simulation.circuits[0].switchgear.read_taps().tolist()[1] == -3
    simulation.close()


def test_circuit_with_tapped_windings_travels_by_pickle(master: Path) -> None:
    circuit = Circuit(read_feeder(master), tapped=[("transformer.sub", 0), ("transformer.vr", 1)])
    again = pickle.loads(pickle.dumps(circuit))
    for each in (circuit, again):
        assert [(r.transformer, r.winding, r.control) for r in each.switchgear.regulators] == [
            ("ctl", 2, "ctl"),
            ("sub", 1, ""),
            ("vr", 1, ""),
        ]
        each.close()


def test_two_devices_on_two_windings_of_a_transformer_move_each_its_own(master: Path) -> None:
    simulation = simulate(master, {"one": tap("Transformer.sub", winding=2), "two": tap("Transformer.sub")})
    simulation.step(np.array([[20.0, 5.0]]))  # positions 4 and -3
    own = int(simulation.circuits[0].switchgear.read_taps()[0])
    expected = by_hand(
        master,
        simulation,
        f"edit transformer.ctl wdg=2 tap={1 + 0.00625 * own!r}",
        "edit transformer.sub wdg=2 tap=1.025",
        "edit transformer.sub wdg=1 tap=0.9125",
    )
    np.testing.assert_allclose(simulation.snapshot.v_pu[0], expected, atol=1e-9)
    simulation.close()


def test_other_winding_of_a_regulated_transformer_leaves_its_control_to_the_feeder(master: Path) -> None:
    devices = {"hand": tap("Transformer.ctl", winding=1), "own": tap("Transformer.ctl", control="opendss")}
    simulation = simulate(master, devices)
    regulated = simulation.network.nodes.index("g.1")
    for position in (16.0, 0.0, 32.0):
        simulation.step(np.array([[position]]))
        assert 0.98 < simulation.snapshot.v_pu[0, regulated] * 7199.6 / (121 * 60) < 1.02  # held in its band
    assert simulation.circuits[0].switchgear.read_taps()[1] == 16
    simulation.close()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (tap("Transformer.sub", control="opendss"), "no RegControl moves 'Transformer.sub'"),
        (tap("Transformer.ctl", control="opendss", winding=1), "no RegControl moves 'Transformer.ctl'"),
        (tap("Transformer.sub", winding=3), "has 2 windings, so no winding 3"),
        (tap("Transformer.suub"), "unknown transformer 'suub' (did you mean 'sub'?"),
        (tap("Transformer.sub", tap_initial=12), "tap_initial 12 is outside tap_min..tap_max = -8..8"),
        (tap("RegControl.ctl", winding=2), "goes with a transformer"),
    ],
)
def test_winding_that_cannot_be_moved_so_is_refused_by_name(master: Path, device: dict[str, Any], message: str) -> None:
    with pytest.raises(PowerGridError) as error:
        simulate(master, {"t": device})
    assert message.lower() in str(error.value).lower()


def test_winding_with_one_tap_or_beyond_its_range_is_refused(tmp_path: Path) -> None:
    for keys, message in (
        ("wdg=2 numtaps=0", "has one tap"),
        ("wdg=2 mintap=0.9 maxtap=1.1 tap=1.2", "stands at tap 1.2, outside"),
    ):
        path = tmp_path / "stuck.dss"
        path.write_text(FEEDER.replace("wdg=1 mintap=0.85 maxtap=1.05 numtaps=16 tap=0.975", keys))
        with pytest.raises(PowerGridError, match=message):
            simulate(path, {"t": tap("Transformer.sub", winding=2)})


@pytest.mark.parametrize(
    ("device", "limits", "message"),
    [
        ("regulator_1", {"tap_max": 17}, "device 'regulator_1': tap_max 17 is outside -16..16 of RegControl.reg1"),
        ("regulator_1", {"tap_min": -20}, "device 'regulator_1': tap_min -20 is outside -16..16 of RegControl.reg1"),
        ("capacitor_1", {"steps": 3}, "device 'capacitor_1': steps 3 are more than the 1 of Capacitor.cap1"),
    ],
)
def test_limits_beyond_the_element_are_refused(device: str, limits: dict[str, int], message: str) -> None:
    with pytest.raises(PowerGridError) as caught:
        load_scenario("ieee13_voltvar", {f"devices.{device}.{key}": v for key, v in limits.items()}).simulate()
    assert message in str(caught.value)


def test_one_winding_under_two_names_is_refused(master: Path) -> None:
    with pytest.raises(PowerGridError, match="already belongs to device 'one'"):
        simulate(master, {"one": tap("Transformer.sub"), "two": tap("Transformer.sub", winding=1)})


def test_native_policy_leaves_a_tap_changer_without_control_to_its_agent(master: Path) -> None:
    loaded = load_scenario(scenario(master, {"t": tap("Transformer.sub"), "c": tap("RegControl.ctl")}))
    assert leave_to_feeder(loaded)["devices"] == {"c": {"control": "opendss"}}


def test_rule_lowers_a_primary_tap_to_raise_the_voltage(master: Path) -> None:
    """At 0.9 pu of the source, taps on the side of the load go up, and those on the side of the source down."""
    master.write_text(FEEDER.replace("pu=1.0 ", "pu=0.9 "))
    devices = {"low": tap("Transformer.sub", winding=2), "high": tap("Transformer.sub")}
    data = scenario(master, devices, episode_length=8)
    task = GridTask(load_scenario(data))
    task.reset(0, np.random.default_rng(0), {"day": 20})
    rule = RuleBased()
    rule.reset(task, 0)
    task.action_buffer()[:] = rule.act(task)
    task.step()
    fleet = next(f for f in task.simulation.fleets if f.kind == "regulator")
    moved = dict(zip(fleet.names, (fleet.position[0] - [0, 2]).tolist(), strict=True))
    assert moved["low"] > 0 > moved["high"]
    task.close()
