"""A compiled feeder: what is written is what text commands would do, what is read is what OpenDSS says itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powergrid.errors import FeederError
from powergrid.grid.circuit.circuit import Circuit, Injection, Snapshot
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.compile import compile_feeder
from powergrid.grid.feeder.feeder import list_feeders, read_feeder

ComplexArray = npt.NDArray[np.complex128]

UPSTREAM = Path(__file__).parents[3].parent / "shared" / "upstream-feeders"
UPSTREAM_MASTERS = [
    "13Bus/IEEE13Nodeckt.dss",
    "34Bus/ieee34Mod1.dss",
    "34Bus/ieee34Mod2.dss",
    "37Bus/ieee37.dss",
    "4Bus-YY-Bal/4Bus-YY-Bal.DSS",
    "123Bus/IEEE123Master.dss",
    pytest.param("ckt5/Master_ckt5.dss", marks=pytest.mark.slow),
    pytest.param("8500-Node/Master.dss", marks=pytest.mark.slow),
]
TIGHT = 1e-9

# One of everything a device can be bound to, behind a tapped three-winding transformer:
#
#   sourcebus --l1-- b --t (tap on winding 2)-- c (4.16 kV): loads, g, bank
#                    |                     \--- d (480 V): pv, store
#                    b --tie-- e
MIXED = """
New Circuit.mixed basekv=12.47 pu=1.02 R1=0.05 X1=0.3
New Line.l1 bus1=sourcebus bus2=b length=2 units=km R1=0.3 X1=0.4 NormAmps=300
New Line.tie bus1=b bus2=e length=1 units=km R1=0.3 X1=0.4 NormAmps=200
New Transformer.t phases=3 windings=3 buses=(b c d) kvs=(12.47 4.16 0.48) kvas=(2000 2000 1000) xhl=6 xht=5 xlt=4
~ wdg=2 mintap=0.9 maxtap=1.2 numtaps=20 tap=1.05
New RegControl.r transformer=t winding=2 vreg=122 ptratio=20 band=3
New Load.a bus1=c kV=4.16 kW=400 kvar=150 vminpu=0.5 vmaxpu=1.5
New Load.one bus1=c.2 phases=1 kV=2.4 kW=100 kvar=30 vminpu=0.5 vmaxpu=1.5
New Load.delta bus1=c.1.3 phases=1 conn=delta kV=4.16 kW=60 kvar=20 vminpu=0.5 vmaxpu=1.5
New Load.zero bus1=e kV=12.47 kW=0 kvar=0
New Load.tail bus1=e kV=12.47 kW=150 kvar=20 vminpu=0.5 vmaxpu=1.5
New Generator.g bus1=c kV=4.16 kVA=900 kW=50 kvar=10 model=3
New Storage.store bus1=d kV=0.48 kVA=300 kWrated=250 kWhrated=1000
New XYCurve.eff npts=3 xarray=(0.1 0.5 1) yarray=(0.86 0.93 0.95)
New PVSystem.pv bus1=d kV=0.48 kVA=300 Pmpp=250 irradiance=0.5 effcurve=eff %Pmpp=80
New Capacitor.bank bus1=c kV=4.16 numsteps=3 kvar=100 states=(0 1 0)
Set VoltageBases=[12.47 4.16 0.48]
CalcVoltageBases
"""


def write(folder: Path, text: str) -> Path:
    master = folder / "mixed.dss"
    master.write_text(text)
    return master


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return write(tmp_path, MIXED)


def open_circuit(master: str | Path, injections: Sequence[Injection] = (), tolerance: float = TIGHT) -> Circuit:
    return Circuit(read_feeder(master), injections, tolerance=tolerance)


def read(circuit: Circuit) -> Snapshot:
    snapshot = Snapshot.allocate(1, circuit.network, len(circuit.injections))
    circuit.read(snapshot, 0)
    return snapshot


def solve(circuit: Circuit) -> Snapshot:
    assert circuit.solve()
    return read(circuit)


def by_text(master: str | Path, commands: Iterable[str]) -> dict[str, complex]:
    """Solve a fresh compile after text commands, controls held where they are; node to voltage [V]."""
    engine = Engine()
    compile_feeder(read_feeder(master), engine)
    engine.prepare(tolerance=TIGHT, max_iterations=100)
    for command in commands:
        engine.command(command)
    assert engine.solve()
    volts = engine.voltages(len(engine.node_names()))[1:].copy()
    return dict(zip(engine.node_names(), volts, strict=True))


def largest_difference(circuit: Circuit, volts: dict[str, complex]) -> float:
    """Compare a circuit's voltages with others [pu]; nodes need not be in one order."""
    assert set(circuit.network.nodes) == volts.keys()
    expected = np.array([volts[node] for node in circuit.network.nodes])
    difference = np.abs(circuit.v[1:] - expected) / circuit.network.v_base
    return float(difference[np.abs(expected) > 1e-3 * circuit.network.v_base].max())  # islands float


def held(circuit: Circuit) -> list[str]:
    """Text commands that put a fresh compile's switchgear where a circuit has it."""
    commands = []
    for regulator, tap in zip(circuit.switchgear.regulators, circuit.switchgear.tap_pu, strict=True):
        commands.append(f"edit Transformer.{regulator.transformer} wdg={regulator.winding} tap={tap:.15g}")
    for name, count, (_, _, states) in zip(
        circuit.network.capacitors, circuit.steps_on, circuit.switchgear.capacitors, strict=True
    ):
        compiled = count == states.sum()
        on = states if compiled else (np.arange(len(states)) < count).astype(int)
        commands.append(f"edit Capacitor.{name} states=({' '.join(str(s) for s in on)})")
    for name, closed in zip(circuit.network.switches, circuit.closed, strict=True):
        commands.append(f"{'close' if closed else 'open'} Line.{name} term=1")
    return commands


def move_at_random(circuit: Circuit, rng: np.random.Generator, *, switch: bool) -> None:
    circuit.switchgear.write_taps(circuit.taps + rng.integers(-4, 5, len(circuit.taps)))
    circuit.switchgear.write_steps(rng.integers(0, circuit.switchgear.steps_max + 1))
    if switch:
        closed = circuit.closed.copy()
        closed[rng.integers(len(closed))] ^= 1
        circuit.switchgear.write_closed(closed)


# -- names


def test_injections_that_the_feeder_lacks_are_reported_at_once_with_the_nearest_names(mixed: Path) -> None:
    wrong = [
        Injection("a", bus="sourcebuss"),
        Injection("b", element="Storage.stor"),
        Injection("c", element="Inverter.pv"),
        Injection("d", element="PVSystem.pv"),
        Injection("e", element="pvsystem.PV"),
        Injection("f", bus="c", phases=(1, 4)),
        Injection("g", bus="c", phases=(1,), connection="delta"),
        Injection("h", bus="c", connection="star"),
        Injection("i", bus="c", phases=()),
    ]
    with pytest.raises(FeederError) as caught:
        open_circuit(mixed, wrong)
    assert caught.value.problems == (
        "device 'a': unknown bus 'sourcebuss' (did you mean 'sourcebus'?)",
        "device 'b': unknown Storage 'stor' (did you mean 'store'?)",
        "device 'c': unknown element class 'Inverter' (did you mean 'Generator'?)",
        "device 'e': PVSystem.pv already belongs to device 'd'",
        "device 'f': bus 'c' has phases [1, 2, 3], not [4]",
        "device 'g': delta takes two or three phases, not 1",
        "device 'h': unknown connection 'star'; allowed: wye, delta",
        "device 'i': phases are []; give each phase once",
    )


def test_device_on_a_pv_system_without_panels_is_refused(tmp_path: Path) -> None:
    master = write(tmp_path, MIXED.replace("Pmpp=250", "Pmpp=0"))
    with pytest.raises(FeederError, match="Pmpp = 0 kW"):
        open_circuit(master, [Injection("sun", element="PVSystem.pv")])


def test_device_names_with_odd_characters_are_no_commands(mixed: Path) -> None:
    odd = ["a b", "a.b", "x kw=1e6", "größe", "A B"]
    circuit = open_circuit(mixed, [Injection(name, bus="c") for name in odd])
    circuit.write_injections(np.arange(5.0), np.zeros(5))
    assert solve(circuit).device_kva[0].real == pytest.approx(np.arange(5.0), abs=1e-4)


# -- writing: bulk is text


@pytest.mark.parametrize("name", list_feeders())
def test_demand_in_bulk_gives_the_voltages_of_text_edits(name: str) -> None:
    circuit, rng = open_circuit(name), np.random.default_rng(1)
    loads = circuit.network.loads
    for switch in (False, False, True):
        kw, kvar = loads.kw * rng.uniform(0.2, 1.1, len(loads.kw)), loads.kvar * rng.uniform(0.2, 1.1, len(loads.kw))
        circuit.write_demand(kw, kvar)
        move_at_random(circuit, rng, switch=switch)
        solve(circuit)
        edits = [f"edit Load.{n} kw={p:.15g} kvar={q:.15g}" for n, p, q in zip(loads.names, kw, kvar, strict=True)]
        assert largest_difference(circuit, by_text(name, [*held(circuit), *edits])) < 2e-7


DEVICES = [
    Injection("bess", element="Storage.store"),
    Injection("sun", element="PVSystem.pv"),
    Injection("diesel", element="Generator.g"),
    Injection("three", bus="e"),
    Injection("single", bus="c", phases=(2,)),
    Injection("between", bus="c", phases=(3, 1), connection="delta"),
    Injection("two", bus="d", phases=(1, 3)),
]
SETPOINTS = [
    ([100, 120, 200, 50, 20, -15, 8], [20, -30, 60, 0, 5, 2, -1]),
    ([-100, 0, -50, -50, 20, 15, 8], [20, -30, 0, 40, -5, 2, 0]),
    ([200, 8, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]),
    ([-200, 250, 800, 300, 60, -40, -30], [0, 50, 100, 80, 0, 0, 10]),
]


def devices_as_text(p: Sequence[float], q: Sequence[float]) -> list[str]:
    """The same powers by other means: negative constant-power loads, the bound elements switched off."""
    places = [
        "bus1=d kv=0.48", "bus1=d kv=0.48", "bus1=c kv=4.16", "bus1=e kv=12.47",
        f"bus1=c.2 phases=1 kv={4.16 / 3**0.5!r}", "bus1=c.3.1 phases=1 conn=delta kv=4.16",
        "bus1=d.1.3 phases=2 kv=0.48",
    ]  # fmt: skip
    new = [f"new Load.device{i} {place} kw={-p[i]} kvar={-q[i]} vminpu=0.2 vmaxpu=2" for i, place in enumerate(places)]
    return ["edit Storage.store enabled=no", "edit PVSystem.pv enabled=no", "edit Generator.g enabled=no", *new]


def test_devices_of_every_kind_give_the_voltages_of_constant_power_by_text(mixed: Path) -> None:
    circuit, rng = open_circuit(mixed, DEVICES), np.random.default_rng(2)
    for p, q in [*SETPOINTS, *SETPOINTS[::-1]]:
        circuit.write_injections(np.array(p, dtype=float), np.array(q, dtype=float))
        snapshot = solve(circuit)
        assert snapshot.device_kva[0] == pytest.approx(np.array(p) + 1j * np.array(q), abs=1e-4)
        assert largest_difference(circuit, by_text(mixed, [*held(circuit), *devices_as_text(p, q)])) < 1e-7
        move_at_random(circuit, rng, switch=False)


def test_order_of_switchgear_and_setpoints_does_not_matter(mixed: Path) -> None:
    one, other = open_circuit(mixed, DEVICES), open_circuit(mixed, DEVICES)
    p, q = (np.array(values, dtype=float) for values in SETPOINTS[0])
    one.write_injections(p, q)
    one.switchgear.write_taps(np.array([3]))
    one.switchgear.write_steps(np.array([3]))
    other.switchgear.write_steps(np.array([3]))
    other.switchgear.write_taps(np.array([3]))
    other.write_injections(p, q)
    assert solve(one).v.tobytes() == solve(other).v.tobytes()


def test_device_on_a_load_is_written_with_the_demand(mixed: Path) -> None:
    circuit = open_circuit(mixed, [Injection("pump", element="Load.delta")])
    loads = circuit.network.loads
    assert circuit.load_of_device.tolist() == [loads.names.index("delta")]
    kw = loads.kw.copy()
    kw[circuit.load_of_device] = 33.0
    circuit.write_demand(kw, loads.kvar)
    assert solve(circuit).device_kva[0] == pytest.approx([-33.0 - 20j], abs=1e-4)


def test_bound_storage_stays_inside_its_inverter(mixed: Path) -> None:
    circuit = open_circuit(mixed, [Injection("bess", element="Storage.store")])
    circuit.write_injections(np.array([-400.0]), np.array([0.0]))
    assert solve(circuit).device_kva[0, 0].real == pytest.approx(-250.0, abs=1e-3)


@pytest.mark.parametrize(("written", "q_kvar"), [("", 80.0), ("kva=100", 80.0), ("kvarmax=40 kvarmaxabs=40", 40.0)])
def test_bound_storage_without_a_rating_of_its_own_gives_all_kvar_of_its_inverter(
    tmp_path: Path, written: str, q_kvar: float
) -> None:
    battery = f"New Storage.bare bus1=b phases=3 kV=12.47 kWrated=100 kWhrated=300 {written}\n"
    text = "New Circuit.c basekv=12.47\nNew Line.l bus1=sourcebus bus2=b r1=0.1 x1=0.2 length=1\n"
    master = write(tmp_path, text + battery + "Set VoltageBases=[12.47]\nCalcVoltageBases\n")
    circuit = open_circuit(master, [Injection("bess", element="Storage.bare")])
    circuit.write_injections(np.array([-50.0]), np.array([80.0]))
    assert solve(circuit).device_kva[0, 0] == pytest.approx(-50.0 + 1j * q_kvar, abs=1e-3)


def test_load_multiplier_of_the_feeder_becomes_part_of_the_demand(tmp_path: Path) -> None:
    master = write(tmp_path, MIXED.replace("kW=60 kvar=20", "kW=60 kvar=20 status=fixed") + "Set LoadMult=0.5\n")
    circuit = open_circuit(master)
    loads = circuit.network.loads
    assert dict(zip(loads.names, loads.kw.tolist(), strict=True)) == pytest.approx(
        {"a": 200.0, "one": 50.0, "delta": 60.0, "zero": 0.0, "tail": 75.0}
    )
    assert loads.kvar[0] == pytest.approx(75.0)
    before = solve(circuit).v_pu
    circuit.write_demand(loads.kw, loads.kvar)
    assert solve(circuit).v_pu == pytest.approx(before, abs=1e-8)
    assert largest_difference(circuit, by_text(master, held(circuit))) < 1e-7


# -- reading: what OpenDSS says itself


def check_against_opendss(circuit: Circuit, snapshot: Snapshot) -> None:
    direct, network = circuit.engine.direct, circuit.network
    v = dict(zip((n.lower() for n in direct.Circuit.AllNodeNames()), direct.Circuit.AllBusMagPu(), strict=True))
    assert snapshot.v_pu[0] == pytest.approx([v[node] for node in network.nodes], rel=1e-9, abs=1e-12)
    percent = dict(zip((n.lower() for n in direct.PDElements.AllNames()), direct.PDElements.AllPctNorm(), strict=True))
    rated = network.branches.norm_amps > 0
    expected = [percent[n] / 100 if has else 0.0 for n, has in zip(network.branches.names, rated, strict=True)]
    assert snapshot.loading_pu[0] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert snapshot.losses_kw[0] == pytest.approx(direct.Circuit.Losses()[0] / 1e3, rel=1e-6, abs=1e-5)
    total = complex(*direct.Circuit.TotalPower())
    assert snapshot.source_kva[0] == pytest.approx(-total, rel=1e-9)
    for class_name in ("Line", "Transformer"):
        for name in circuit.handles[class_name]:
            direct.Circuit.SetActiveElement(f"{class_name}.{name}")
            powers = np.array(direct.CktElement.Powers()).view(complex)
            mine = snapshot.terminal_kva[0][
                network.branches.terminal_branch == network.branches.names.index(f"{class_name}.{name}".lower())
            ]
            assert mine == pytest.approx(powers.reshape(len(mine), -1).sum(axis=1), rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("name", list_feeders())
def test_snapshot_equals_what_opendss_says_through_all_switchgear(name: str) -> None:
    circuit, rng = open_circuit(name), np.random.default_rng(3)
    check_against_opendss(circuit, solve(circuit))
    for switch in (False, True, False, True, True):
        move_at_random(circuit, rng, switch=switch)
        if circuit.solve():
            check_against_opendss(circuit, read(circuit))
    circuit.reset()
    check_against_opendss(circuit, solve(circuit))


def test_snapshot_with_every_kind_of_device_equals_what_opendss_says(mixed: Path) -> None:
    circuit, rng = open_circuit(mixed, DEVICES), np.random.default_rng(4)
    for p, q in SETPOINTS:
        circuit.write_injections(np.array(p, dtype=float), np.array(q, dtype=float))
        move_at_random(circuit, rng, switch=False)
        check_against_opendss(circuit, solve(circuit))


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the models as they circulate are not here")
@pytest.mark.parametrize("master", UPSTREAM_MASTERS)
def test_snapshot_of_circulating_models_equals_what_opendss_says(master: str) -> None:
    circuit, rng = open_circuit(UPSTREAM / master, tolerance=1e-6), np.random.default_rng(5)
    check_against_opendss(circuit, solve(circuit))
    move_at_random(circuit, rng, switch=True)
    check_against_opendss(circuit, solve(circuit))


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Circuit:
    return open_circuit(write(tmp_path_factory.mktemp("mixed"), MIXED), DEVICES)


@settings(max_examples=60)
@given(
    scale=st.floats(0.0, 1.5),
    p=st.lists(st.floats(-200.0, 200.0), min_size=7, max_size=7),
    q=st.lists(st.floats(-80.0, 80.0), min_size=7, max_size=7),
    tap=st.integers(-10, 10),
    steps=st.integers(0, 3),
)
def test_source_and_devices_feed_loads_and_losses(
    balanced: Circuit, scale: float, p: list[float], q: list[float], tap: int, steps: int
) -> None:
    circuit, loads = balanced, balanced.network.loads
    p[1] = abs(p[1])  # panels do not draw
    circuit.write_demand(loads.kw * scale, loads.kvar * scale)
    circuit.write_injections(np.array(p), np.array(q))
    circuit.switchgear.write_taps(np.array([tap]))
    circuit.switchgear.write_steps(np.array([steps]))
    snapshot = solve(circuit)
    assert snapshot.device_kva[0] == pytest.approx(np.array(p) + 1j * np.array(q), abs=1e-3)
    fed = snapshot.source_kva[0].real + snapshot.device_kva[0].real.sum()
    assert fed == pytest.approx(loads.kw.sum() * scale + snapshot.losses_kw[0], abs=1e-2)


def test_ratings_given_by_hand_scale_the_loading(mixed: Path) -> None:
    circuit = open_circuit(mixed)
    before = solve(circuit).loading_pu[0].copy()
    circuit.set_ratings({"Line.TIE": 100.0, "capacitor.bank": 50.0})
    after, names = solve(circuit).loading_pu[0], circuit.network.branches.names
    assert after[names.index("line.tie")] == pytest.approx(2 * before[names.index("line.tie")])
    assert before[names.index("capacitor.bank")] == 0.0
    assert after[names.index("capacitor.bank")] > 0.0
    assert after[names.index("line.l1")] == pytest.approx(before[names.index("line.l1")])
    with pytest.raises(
        FeederError, match=r"unknown branch 'line\.ty'(?s:.*)'line\.l1': a rating of 0 A is not above 0"
    ):
        circuit.set_ratings({"line.ty": 1.0, "line.l1": 0.0})


# -- taps, steps, switches


def test_tap_numbers_are_those_of_the_control_on_any_range(mixed: Path) -> None:
    circuit = open_circuit(mixed)
    assert (circuit.switchgear.tap_min.tolist(), circuit.switchgear.tap_max.tolist()) == ([-10], [10])
    assert circuit.network.regulators == ("t",)
    direct = circuit.engine.direct
    direct.RegControls.First()
    for tap in (-10, -3, 0, 1, 10):
        circuit.switchgear.write_taps(np.array([tap]))
        assert direct.RegControls.TapNumber() == tap
        assert circuit.switchgear.read_taps().tolist() == [tap]
        assert direct.Text.Command("? Transformer.t.taps") is None
        taps = circuit.engine.get_floats(circuit.switchgear.regulators[0].handle, "Transformer", "Taps")
        assert taps == pytest.approx([1.0, 1.05 + 0.015 * tap, 1.0])


def test_tap_beyond_its_range_stays_at_the_end(mixed: Path) -> None:
    circuit = open_circuit(mixed)
    circuit.switchgear.write_taps(np.array([16]))
    assert circuit.taps.tolist() == [10]


def test_tap_between_two_positions_comes_back_with_its_number(tmp_path: Path) -> None:
    text = MIXED.replace("tap=1.05", "tap=1.0512").replace("band=3", "band=60")
    circuit = open_circuit(write(tmp_path, text))
    assert circuit.taps.tolist() == [0]
    assert circuit.switchgear.tap_pu.tolist() == [1.0512]
    first = solve(circuit).v.copy()
    circuit.switchgear.write_taps(np.array([2]))
    solve(circuit)
    circuit.reset()
    assert circuit.switchgear.tap_pu.tolist() == [1.0512]
    assert solve(circuit).v.tobytes() == first.tobytes()


def test_regulator_on_an_autotransformer_moves(tmp_path: Path) -> None:
    master = write(
        tmp_path,
        "New Circuit.x basekv=12.47\n"
        "New AutoTrans.at phases=3 windings=2 buses=(sourcebus b) kvs=(12.47 4.16) kvas=(5000 5000) xhx=1\n"
        "New RegControl.r transformer=at winding=2 vreg=122 ptratio=20 band=2\n"
        "New Load.a bus1=b kV=4.16 kW=500\nSet VoltageBases=[12.47 4.16]\nCalcVoltageBases\n",
    )
    circuit = open_circuit(master)
    assert circuit.network.regulators == ("at",)
    low, high = (solve_at(circuit, tap).v_pu[0, -1] for tap in (-8, 8))
    assert high - low > 0.05
    direct = circuit.engine.direct
    direct.RegControls.First()
    assert direct.RegControls.TapNumber() == 8
    check_against_opendss(circuit, solve(circuit))


def solve_at(circuit: Circuit, tap: int) -> Snapshot:
    circuit.switchgear.write_taps(np.array([tap]))
    return solve(circuit)


def test_two_controls_on_one_winding_are_one_regulator(tmp_path: Path) -> None:
    circuit = open_circuit(
        write(tmp_path, MIXED + "New RegControl.again transformer=t winding=2 vreg=122 ptratio=20\n")
    )
    assert circuit.network.regulator_controls == ("r",)


def test_bank_of_three_steps_gives_the_kvar_of_the_steps_that_are_on(mixed: Path) -> None:
    circuit = open_circuit(mixed)
    assert (circuit.steps_on.tolist(), circuit.switchgear.steps_max.tolist()) == ([1], [3])
    branch = circuit.network.branches.names.index("capacitor.bank")
    terminal = int(np.flatnonzero(circuit.network.branches.terminal_branch == branch)[0])
    kvar = {}
    for steps in (1, 0, 3, 2, 1):
        circuit.switchgear.write_steps(np.array([steps]))
        snapshot = solve(circuit)
        v_squared = np.mean(snapshot.v_pu[0][circuit.network.nodes_of([circuit.network.bus_index["c"]])] ** 2)
        kvar[steps] = -snapshot.terminal_kva[0][terminal].imag / v_squared
        on = circuit.engine.get_ints(circuit.handles["Capacitor"]["bank"], "Capacitor", "States").tolist()
        assert on == {0: [0, 0, 0], 1: [0, 1, 0], 2: [1, 1, 0], 3: [1, 1, 1]}[steps]  # one: as compiled
    assert kvar == pytest.approx({0: 0.0, 1: 100.0, 2: 200.0, 3: 300.0}, rel=2e-3, abs=1e-6)


def test_line_open_in_one_phase_returns_to_just_that(tmp_path: Path) -> None:
    master = write(tmp_path, MIXED + "Open Line.tie 2 3\n")
    circuit = open_circuit(master)
    tie = circuit.network.switches.index("tie")
    assert circuit.closed.tolist() == [1, 1]
    first = solve(circuit).v.copy()
    for value in (0, 1):
        closed = circuit.closed.copy()
        closed[tie] = value
        circuit.switchgear.write_closed(closed)
        solve(circuit)
    circuit.reset()
    assert solve(circuit).v.tobytes() == first.tobytes()
    assert circuit.engine.open_places(circuit.handles["Line"]["tie"]) == ((2, 3),)


def test_line_open_at_its_far_end_can_be_closed(tmp_path: Path) -> None:
    circuit = open_circuit(write(tmp_path, MIXED + "Open Line.tie 2\n"))
    assert circuit.closed.tolist() == [1, 0]
    ends = circuit.network.nodes_of([circuit.network.bus_index["e"]])
    assert solve(circuit).v_pu[0][ends].max() < 0.01
    circuit.switchgear.write_closed(np.array([1, 1]))
    assert solve(circuit).v_pu[0][ends].min() > 0.9
    assert largest_difference(circuit, by_text(write(tmp_path, MIXED), held(circuit))) < 1e-7


def test_positions_to_start_from_outlast_a_reset(mixed: Path) -> None:
    circuit = open_circuit(mixed)
    circuit.start_from({"R": 4}, {"bank": 3})
    circuit.switchgear.write_taps(np.array([0]))
    circuit.reset()
    assert (circuit.taps.tolist(), circuit.steps_on.tolist()) == ([4], [3])
    with pytest.raises(FeederError, match=r"unknown regulator control 'q'(?s:.*)capacitor 'bank': 4 is outside 0\.\.3"):
        circuit.start_from({"q": 1}, {"bank": 4})


# -- failure


@pytest.mark.parametrize("name", list_feeders())
@pytest.mark.parametrize("how", ["overload", "nan", "nan device"])
def test_solve_that_fails_says_so_and_the_next_one_is_sound(name: str, how: str) -> None:
    bus = open_circuit(name).network.nodes[-1].rpartition(".")
    circuit = open_circuit(name, [Injection("d", bus=bus[0], phases=(int(bus[2]),))])
    loads, start = circuit.network.loads, circuit.taps.copy()
    reference = solve(circuit)
    bad_kw = {"overload": loads.kw * 300, "nan": loads.kw * np.nan, "nan device": loads.kw}[how]
    for _ in range(3):
        circuit.write_demand(bad_kw, loads.kvar * (300 if how == "overload" else 1))
        circuit.write_injections(np.array([np.nan if how == "nan device" else 0.0]), np.zeros(1))
        if how == "overload" and circuit.solve():
            continue  # some feeders do hold as impedances
        failed = read(circuit)
        assert how == "overload" or not circuit.solve()
        assert all(np.isfinite(values).all() for values in vars(failed).values())
        circuit.switchgear.write_taps(circuit.taps - 1)  # an admittance matrix built meanwhile must not keep the NaN
    circuit.write_demand(loads.kw, loads.kvar)
    circuit.write_injections(np.zeros(1), np.zeros(1))
    circuit.switchgear.write_taps(start)
    again = solve(circuit)
    assert again.v_pu == pytest.approx(reference.v_pu, abs=1e-6)
    assert again.losses_kw == pytest.approx(reference.losses_kw, rel=1e-4)


@pytest.mark.parametrize("name", list_feeders())
def test_any_line_opened_leaves_a_finite_state_and_closes_again(name: str) -> None:
    circuit = open_circuit(name, tolerance=1e-6)
    reference = solve(circuit)
    n_lines = len(circuit.closed)
    for line in range(0, n_lines, 1 + n_lines // 200):  # of a large feeder some, spread over it
        closed = circuit.closed.copy()
        closed[line] = 0
        circuit.switchgear.write_closed(closed)
        circuit.solve()
        snapshot = read(circuit)
        assert all(np.isfinite(values).all() for values in vars(snapshot).values())
        circuit.reset()
    assert solve(circuit).v_pu == pytest.approx(reference.v_pu, abs=1e-5)


# -- reset and state


def play(circuit: Circuit, seed: int, n_steps: int = 50) -> list[bytes]:
    rng, loads, n = np.random.default_rng(seed), circuit.network.loads, len(circuit.injections)
    snapshot, seen = Snapshot.allocate(1, circuit.network, n), []
    for step in range(n_steps):
        circuit.write_demand(loads.kw * rng.uniform(0.3, 1.1, len(loads.kw)), loads.kvar * rng.uniform(0.3, 1.1))
        circuit.write_injections(np.abs(rng.normal(0, 50, n)) * ([-1, 1] + [1] * n)[:n], rng.normal(0, 20, n))
        move_at_random(circuit, rng, switch=step % 10 == 5)
        circuit.solve()
        circuit.read(snapshot, 0)
        seen.append(b"".join(values.tobytes() for values in vars(snapshot).values()))
    return seen


@pytest.mark.parametrize("name", [*list_feeders(), "mixed"])
def test_reset_gives_the_first_trajectory_bit_for_bit(name: str, mixed: Path) -> None:
    circuit = open_circuit(mixed, DEVICES) if name == "mixed" else open_circuit(name)
    where = circuit.engine.voltages(len(circuit.network.nodes)).ctypes.data
    first = play(circuit, seed=1)
    play(circuit, seed=2)
    circuit.reset()
    assert play(circuit, seed=1) == first
    assert circuit.engine.voltages(len(circuit.network.nodes)).ctypes.data == where  # a compile would move it
    fresh = open_circuit(mixed, DEVICES) if name == "mixed" else open_circuit(name)
    assert play(fresh, seed=1) == first


@pytest.mark.parametrize("name", ["ieee13", "ieee123", "mixed"])
def test_state_put_back_continues_bit_for_bit(name: str, mixed: Path) -> None:
    circuit = open_circuit(mixed, DEVICES) if name == "mixed" else open_circuit(name)
    play(circuit, seed=1)
    state = circuit.state()
    after = play(circuit, seed=2)
    circuit.restore(state)
    assert play(circuit, seed=2) == after
    other = open_circuit(mixed, DEVICES) if name == "mixed" else open_circuit(name)
    other.restore(state)
    assert play(other, seed=2) == after


# -- the feeder's own controls


@pytest.mark.parametrize("name", list_feeders())
def test_shipped_feeder_starts_at_the_taps_and_voltages_of_its_reference(name: str) -> None:
    feeder = read_feeder(name)
    circuit = Circuit(feeder, tolerance=1e-4)  # the reference's own, which leaves 2e-4 pu on ieee8500
    taps = (feeder.master.parent / "reference_taps.csv").read_text().split()[1:]
    assert circuit.taps.tolist() == [int(row.rpartition(",")[2]) for row in taps]
    rows = (row.split(",") for row in (feeder.master.parent / "reference.csv").read_text().split()[1:])
    v_pu = {node: float(magnitude) for node, magnitude, _ in rows}
    assert solve(circuit).v_pu[0] == pytest.approx([v_pu[node] for node in circuit.network.nodes], abs=3e-4)


@pytest.mark.parametrize("name", list_feeders())
def test_own_controls_find_the_same_taps_from_anywhere_near_and_are_followed(name: str) -> None:
    circuit = open_circuit(name)
    loads, direct = circuit.network.loads, circuit.engine.direct
    for scale in (1.0, 0.4, 1.0, 0.7):
        circuit.write_demand(loads.kw * scale, loads.kvar * scale)
        assert circuit.solve(controls=True)
        snapshot, taps = read(circuit), []
        assert circuit.own_moves > 0 or scale == 1.0 or not len(circuit.taps)
        for control in circuit.network.regulator_controls:
            direct.RegControls.Name(control)
            taps.append(round(direct.RegControls.TapNumber()))
        assert circuit.taps.tolist() == taps
        check_against_opendss(circuit, snapshot)
        before = snapshot.v_pu.copy()
        assert solve(circuit).v_pu == pytest.approx(before, abs=1e-6)  # held where the controls left them


def test_controls_that_fight_leave_a_solved_circuit_that_goes_on(tmp_path: Path) -> None:
    fight = "New RegControl.other transformer=t winding=2 vreg=112 ptratio=20 band=3\nNew Load.a"
    circuit = Circuit(
        read_feeder(write(tmp_path, MIXED.replace("New Load.a", fight))), tolerance=TIGHT, max_iterations=20
    )
    for _ in range(3):
        assert circuit.solve(controls=True)
        check_against_opendss(circuit, read(circuit))
        assert circuit.solve()
    circuit.reset()
    check_against_opendss(circuit, solve(circuit))


# -- feeders at the edge


def test_feeder_without_loads_and_lines_solves(tmp_path: Path) -> None:
    text = "New Circuit.x basekv=12.47\n"
    text += "New Transformer.t buses=(sourcebus b) kvs=(12.47 0.48) kvas=(100 100)\n"
    end = "Set VoltageBases=[12.47 0.48]\nCalcVoltageBases\n"
    circuit = open_circuit(write(tmp_path, text + end))
    circuit.write_demand(np.zeros(0), np.zeros(0))
    circuit.switchgear.write_closed(np.zeros(0, dtype=np.int64))
    assert solve(circuit).v_pu == pytest.approx(np.ones((1, 6)), abs=1e-3)
    check_against_opendss(circuit, solve(circuit))


def test_feeder_that_is_only_a_source_solves(tmp_path: Path) -> None:
    end = "New Load.a bus1=sourcebus kV=12.47 kW=10\nSet VoltageBases=[12.47]\nCalcVoltageBases\n"
    circuit = open_circuit(write(tmp_path, "New Circuit.x basekv=12.47\n" + end))
    snapshot = solve(circuit)
    assert snapshot.losses_kw[0] == 0.0
    assert snapshot.source_kva[0].real == pytest.approx(10.0, abs=1e-4)


def test_feeder_with_several_sources_counts_them_all(tmp_path: Path) -> None:
    more = "New Vsource.second bus1=e basekv=12.47 pu=1.02 R1=1 X1=3\nNew Isource.third bus1=c amps=5\n"
    circuit = open_circuit(write(tmp_path, MIXED + more))
    snapshot, loads = solve(circuit), circuit.network.loads
    check_against_opendss(circuit, snapshot)
    direct = circuit.engine.direct
    own = 0.0
    for name in ("Storage.store", "PVSystem.pv", "Generator.g"):
        direct.Circuit.SetActiveElement(name)
        own -= sum(direct.CktElement.Powers()[::2])
    assert snapshot.source_kva[0].real + own == pytest.approx(loads.kw.sum() + snapshot.losses_kw[0], abs=1e-2)


def test_disabled_elements_are_not_there(tmp_path: Path) -> None:
    off = "Disable Load.one\nEdit Line.tie enabled=no\nEdit Capacitor.bank enabled=no\nEdit RegControl.r enabled=no\n"
    circuit = open_circuit(write(tmp_path, MIXED + off))
    network = circuit.network
    assert "one" not in network.loads.names
    assert network.switches == ("l1",)
    assert network.capacitors == network.regulators == ()
    check_against_opendss(circuit, solve(circuit))
    with pytest.raises(FeederError, match="unknown Load 'one'"):
        open_circuit(write(tmp_path, MIXED + off), [Injection("d", element="Load.one")])


def test_bus_that_hangs_on_nothing_is_dead_and_finite(tmp_path: Path) -> None:
    lone = "New Line.lone bus1=x bus2=y\nNew Load.lone bus1=y kV=12.47 kW=10\nCalcVoltageBases\n"
    circuit = open_circuit(write(tmp_path, MIXED + lone))
    snapshot, network = solve(circuit), circuit.network
    assert network.downstream("y") == [network.bus_index["y"]]
    assert snapshot.v_pu[0][network.nodes_of([network.bus_index["y"]])].max() < 0.01
    assert all(np.isfinite(values).all() for values in vars(snapshot).values())


def test_feeder_without_base_voltages_says_what_is_missing(tmp_path: Path) -> None:
    bare = "New Circuit.bare\nDisable Vsource.source\nNew Isource.i bus1=b amps=1\nNew Load.x bus1=b kv=12.47 kw=1\n"
    with pytest.raises(FeederError, match=r"no base voltage at .*b; .*does 'CalcVoltageBases' come last"):
        open_circuit(write(tmp_path, bare))


def test_feeder_whose_source_is_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeederError, match="no enabled source") as refused:
        open_circuit(write(tmp_path, MIXED + "Edit Vsource.source enabled=no\n"))
    assert [problem.code for problem in refused.value.details] == ["no-source"]


def test_feeder_that_cannot_carry_its_demand_is_refused(tmp_path: Path) -> None:
    heavy = MIXED.replace("kW=400", "kW=40000").replace("vminpu=0.5", "vminpu=0.01")
    with pytest.raises(FeederError, match="does not converge at nominal demand") as refused:
        open_circuit(write(tmp_path, heavy))
    assert [problem.code for problem in refused.value.details] == ["no-convergence"]


@pytest.mark.parametrize(("source_pu", "shown"), [(6.0, "6 pu"), (0.005, "0.005 pu")])
def test_start_that_opendss_calls_solved_and_no_feeder_has_is_refused(
    tmp_path: Path, source_pu: float, shown: str
) -> None:
    text = f"New Circuit.x basekv=12.47 pu={source_pu}\nNew Line.l bus1=sourcebus bus2=b length=1 units=km\n"
    end = "New Load.a bus1=b kV=12.47 kW=1 model=2\nSet VoltageBases=[12.47]\nCalcVoltageBases\n"
    with pytest.raises(FeederError, match=f"the power flow ends at {shown} at most; look for parts without a path"):
        open_circuit(write(tmp_path, text + end))
    for inside in (4.0, 0.02):
        circuit = open_circuit(write(tmp_path, text.replace(f"pu={source_pu}", f"pu={inside}") + end))
        assert solve(circuit).v_pu.max() == pytest.approx(inside, rel=0.01)


def test_names_that_the_feeder_allows_twice_are_all_kept(tmp_path: Path) -> None:
    twice = MIXED.replace("New Load.zero", "Set AllowDuplicates=yes\nNew Load.a bus1=c kV=4.16 kW=40\nNew Load.zero")
    circuit = open_circuit(write(tmp_path, twice))
    assert len(circuit.network.loads.names) == 6
    assert sorted(circuit.network.loads.kw.tolist()) == [0.0, 40.0, 60.0, 100.0, 150.0, 400.0]
