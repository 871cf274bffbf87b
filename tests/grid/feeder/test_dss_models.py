"""Proves the shipped IEEE feeders against their references; uses the engine only, no other powergrid module."""

from __future__ import annotations

import cmath
import csv
import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from opendssdirect import dss
from opendssdirect.OpenDSSDirect import OpenDSSDirect

DSS_MODELS = Path(__file__).parents[3] / "dss_models"
FEEDERS = ("ieee13", "ieee34", "ieee37", "ieee123", "ieee8500")
# Not part of the project: the tables that ieee8500 is made from.
TABLES_8500 = Path(__file__).parents[3].parent / "shared" / "ieee-tables" / "ieee8500"

SQRT3 = math.sqrt(3.0)
# One step of a 32-step, +-10 % regulator.
TAP_STEP_PU = 0.00625
# Of the power flow; the engine's default is far coarser.
TIGHT, DEFAULT = 1e-10, 1e-4

# IEEE's published power flow was found at these taps: (transformer taps, largest difference allowed [pu]).
# 13 nodes: the published case spreads the load of section 632-671 along it, ours is at bus 670; measured 0.00133.
# 34 nodes: published to four digits; measured 0.00016.
PUBLISHED = {
    "ieee13": ({"reg1": 10, "reg2": 8, "reg3": 11}, 0.0015),
    "ieee34": ({"reg1a": 12, "reg1b": 5, "reg1c": 5, "reg2a": 13, "reg2b": 11, "reg2c": 12}, 0.0003),
}

# Nominal load of the published cases, spot and distributed [kW, kvar].
PUBLISHED_LOAD = {
    "ieee13": (3466.0, 2102.0),
    "ieee34": (1769.0, 1044.0),
    "ieee37": (2457.0, 1201.0),
    "ieee123": (3490.0, 1920.0),
    "ieee8500": (10773.17, 10773.17 * math.tan(math.acos(0.97))),
}

# The references were solved at the engine's default tolerance, which leaves about 2e-5 pu, of ieee8500 2.1e-4.
LEFT_BY_DEFAULT_TOLERANCE = {"ieee8500": 2.5e-4}

# Buses off the feeder's main voltage, by name or pattern, line to line [kV].
MAIN_KV = {"ieee13": 4.16, "ieee34": 24.9, "ieee37": 4.8, "ieee123": 4.16, "ieee8500": 12.47}
OTHER_KV = {
    "ieee13": {"sourcebus": 115.0, "634": 0.48},
    "ieee34": {"sourcebus": 69.0, "888": 4.16, "890": 4.16},
    "ieee37": {"sourcebus": 230.0, "775": 0.48},
    "ieee123": {"610": 0.48},
    "ieee8500": {"sourcebus": 115.0, "hvmv_sub_hsb": 115.0, r"s?x_?\d+[abc]": 0.208},
}

CREATED = ("LineCode", "Line", "XfmrCode", "Transformer", "RegControl", "Load", "Capacitor", "CapControl", "Reactor")

EPRI_PROGRAM = """
import json, sys
from pathlib import Path
import py_dss_interface

engine = py_dss_interface.DSS()
for command in sys.argv[3:]:
    engine.text(command)
circuit = engine.circuit
voltages = circuit.buses_volts
answer = {
    "converged": bool(engine.solution.converged),
    "volts": {name: voltages[2 * i : 2 * i + 2] for i, name in enumerate(circuit.nodes_names)},
    "taps": {name: engine.text(f"? RegControl.{name}.TapNum") for name in json.loads(sys.argv[2])},
}
Path(sys.argv[1]).write_text(json.dumps(answer))
"""


def read_csv(feeder: str, name: str) -> list[dict[str, str]]:
    with (DSS_MODELS / feeder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def commands_to_solve(master: Path, *, control_mode: str, tolerance: float = TIGHT) -> list[str]:
    """Return the text commands that compile a feeder and prepare a snapshot."""
    return [
        f'Redirect "{master}"',
        f"Set Mode=Snapshot ControlMode={control_mode}",
        "Set MaxIter=100",
        "Set MaxControlIter=100",
        f"Set Tolerance={tolerance}",
    ]


def compile_feeder(feeder: str, *, control_mode: str = "Static", tolerance: float = TIGHT) -> OpenDSSDirect:
    engine = dss.NewContext()
    engine.Basic.AllowEditor(False)
    engine.Basic.AllowForms(False)
    engine.Basic.AllowChangeDir(False)
    master = DSS_MODELS / feeder / "Master.dss"
    for command in commands_to_solve(master, control_mode=control_mode, tolerance=tolerance):
        engine.Text.Command(command)
    return engine


def solve(engine: OpenDSSDirect) -> None:
    engine.Solution.Solve()
    assert engine.Solution.Converged()


def voltages_pu(engine: OpenDSSDirect) -> dict[str, complex]:
    names = engine.Circuit.AllNodeNames()
    volts = engine.Circuit.AllBusVolts()
    magnitudes = engine.Circuit.AllBusMagPu()
    return {
        name: cmath.rect(magnitudes[i], cmath.phase(complex(volts[2 * i], volts[2 * i + 1])))
        for i, name in enumerate(names)
    }


def tap_numbers(engine: OpenDSSDirect) -> dict[str, tuple[str, int]]:
    taps: dict[str, tuple[str, int]] = {}
    for name in engine.RegControls.AllNames():
        engine.RegControls.Name(name)
        taps[name] = (engine.RegControls.Transformer(), int(engine.RegControls.TapNumber()))
    return taps


def code_lines(path: Path) -> list[str]:
    """Return the lines that OpenDSS executes, without comments."""
    stripped = (re.split(r"!|//", line)[0].strip() for line in path.read_text().splitlines())
    return [line for line in stripped if line]


@pytest.mark.parametrize("feeder", FEEDERS)
@pytest.mark.parametrize("tolerance", [TIGHT, DEFAULT])
def test_feeder_regulators_free_reproduces_reference_voltages(feeder: str, tolerance: float) -> None:
    engine = compile_feeder(feeder, tolerance=tolerance)
    solve(engine)
    solved = voltages_pu(engine)
    reference = {
        row["node"]: cmath.rect(float(row["v_pu"]), math.radians(float(row["angle_deg"])))
        for row in read_csv(feeder, "reference.csv")
    }
    assert set(solved) == set(reference)
    allowed = LEFT_BY_DEFAULT_TOLERANCE.get(feeder, 1e-4) if tolerance == TIGHT else 1e-4
    assert max(abs(solved[node] - reference[node]) for node in reference) < allowed


@pytest.mark.parametrize("feeder", FEEDERS)
@pytest.mark.parametrize("tolerance", [TIGHT, DEFAULT])
def test_feeder_regulators_free_reproduces_reference_taps(feeder: str, tolerance: float) -> None:
    engine = compile_feeder(feeder, tolerance=tolerance)
    solve(engine)
    reference = {
        row["regcontrol"]: (row["transformer"], int(row["tap_number"]))
        for row in read_csv(feeder, "reference_taps.csv")
    }
    assert tap_numbers(engine) == reference


@pytest.mark.parametrize("feeder", PUBLISHED)
def test_feeder_published_taps_held_gives_published_voltages(feeder: str) -> None:
    taps, tolerance_pu = PUBLISHED[feeder]
    engine = compile_feeder(feeder, control_mode="Off")
    for transformer, tap in taps.items():
        engine.Transformers.Name(transformer)
        engine.Transformers.Wdg(2)
        engine.Transformers.Tap(1.0 + tap * TAP_STEP_PU)
    solve(engine)
    solved = voltages_pu(engine)
    published = {
        f"{row['bus']}.{phase}": float(row[column])
        for row in read_csv(feeder, "published.csv")
        for phase, column in enumerate(("v_a_pu", "v_b_pu", "v_c_pu"), start=1)
        if row[column]
    }
    assert len(published) > 30
    worst = {node: abs(abs(solved[node]) - v_pu) for node, v_pu in published.items()}
    assert max(worst.values()) < tolerance_pu, max(worst.items(), key=lambda item: item[1])


@pytest.mark.parametrize("feeder", FEEDERS)
def test_feeder_loads_summed_equal_published_totals(feeder: str) -> None:
    engine = compile_feeder(feeder)
    kw = kvar = 0.0
    for name in engine.Loads.AllNames():
        engine.Loads.Name(name)
        kw += engine.Loads.kW()
        kvar += engine.Loads.kvar()
    assert (kw, kvar) == pytest.approx(PUBLISHED_LOAD[feeder], abs=1e-6)


@pytest.mark.skipif(
    importlib.util.find_spec("py_dss_interface") is None, reason="needs EPRI's engine, py-dss-interface"
)
@pytest.mark.parametrize("feeder", FEEDERS)
def test_feeder_on_epri_engine_gives_same_voltages(feeder: str, tmp_path: Path) -> None:
    engine = compile_feeder(feeder)
    solve(engine)
    taps = {name: tap for name, (_, tap) in tap_numbers(engine).items()}

    # A process of its own: EPRI's engine prints on stdout, changes directory and may take the interpreter with it.
    copy = shutil.copytree(DSS_MODELS / feeder, tmp_path / feeder)
    answer_file = tmp_path / "answer.json"
    commands = [*commands_to_solve(copy / "Master.dss", control_mode="Static"), "Solve"]
    subprocess.run(
        [sys.executable, "-c", EPRI_PROGRAM, str(answer_file), json.dumps(list(taps)), *commands],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    answer = json.loads(answer_file.read_text())

    assert answer["converged"]
    assert {name: int(tap) for name, tap in answer["taps"].items()} == taps
    base_v = {}
    for bus in engine.Circuit.AllBusNames():
        engine.Circuit.SetActiveBus(bus)
        base_v[bus] = 1000.0 * engine.Bus.kVBase()
    epri = {node: complex(*volts) / base_v[node.rsplit(".", 1)[0]] for node, volts in answer["volts"].items()}
    solved = voltages_pu(engine)
    assert set(epri) == set(solved)
    # Two builds of one algorithm at tolerance 1e-10; measured at most 2.4e-11.
    assert max(abs(solved[node] - epri[node]) for node in epri) < 1e-8


@pytest.mark.parametrize("feeder", FEEDERS)
def test_feeder_compiled_knows_every_bus_voltage_base(feeder: str) -> None:
    engine = compile_feeder(feeder)
    bases_kv = {}
    for bus in engine.Circuit.AllBusNames():
        engine.Circuit.SetActiveBus(bus)
        bases_kv[bus] = SQRT3 * engine.Bus.kVBase()
    expected_kv = dict.fromkeys(bases_kv, MAIN_KV[feeder])
    for pattern, kv in OTHER_KV[feeder].items():
        named = [bus for bus in bases_kv if re.fullmatch(pattern, bus)]
        assert named, pattern
        expected_kv.update(dict.fromkeys(named, kv))
    assert bases_kv == pytest.approx(expected_kv, rel=1e-9)


@pytest.mark.parametrize("feeder", FEEDERS)
def test_feeder_compiled_places_every_bus_and_no_other(feeder: str) -> None:
    engine = compile_feeder(feeder)
    unplaced = []
    for bus in engine.Circuit.AllBusNames():
        engine.Circuit.SetActiveBus(bus)
        if not engine.Bus.Coorddefined():
            unplaced.append(bus)
    assert unplaced == []
    rows = [line.split(",") for line in (DSS_MODELS / feeder / "BusCoords.csv").read_text().splitlines()]
    assert sorted(bus for bus, _, _ in rows) == sorted(engine.Circuit.AllBusNames())
    assert all(math.isfinite(float(x)) and math.isfinite(float(y)) for _, x, y in rows)


@pytest.mark.parametrize("feeder", FEEDERS)
def test_master_text_only_describes_the_circuit(feeder: str) -> None:
    allowed = (
        re.escape(f"New Circuit.{feeder} ") + r"[^\"']+",
        r"Redirect \w+\.dss",
        r"Set VoltageBases=\[[0-9., ]+\]",
        r"CalcVoltageBases",
        r"BusCoords BusCoords\.csv",
    )
    lines = code_lines(DSS_MODELS / feeder / "Master.dss")
    refused = [line for line in lines if not any(re.fullmatch(pattern, line) for pattern in allowed)]
    assert refused == []
    assert sum(line.startswith("New Circuit.") for line in lines) == 1


@pytest.mark.parametrize("feeder", FEEDERS)
def test_part_text_only_creates_elements(feeder: str) -> None:
    parts = [path for path in (DSS_MODELS / feeder).glob("*.dss") if path.name != "Master.dss"]
    assert parts
    refused = [
        f"{path.name}: {line}"
        for path in parts
        for line in code_lines(path)
        if not re.match(rf"New ({'|'.join(CREATED)})\.[\w/-]+ |~ ", line)
    ]
    assert refused == []


@pytest.mark.parametrize("feeder", FEEDERS)
def test_master_redirects_name_each_part_once_in_exact_case(feeder: str) -> None:
    # Compared as names, so that a wrong case fails on file systems that ignore it too.
    redirected = [
        line.split(maxsplit=1)[1]
        for line in code_lines(DSS_MODELS / feeder / "Master.dss")
        if line.startswith("Redirect ")
    ]
    parts = {path.name for path in (DSS_MODELS / feeder).iterdir() if path.suffix == ".dss"} - {"Master.dss"}
    assert sorted(redirected) == sorted(parts)


@pytest.mark.parametrize("feeder", FEEDERS)
def test_readme_names_every_file_of_the_folder(feeder: str) -> None:
    folder = DSS_MODELS / feeder
    listed = set(re.findall(r"^\| `([^`]+)` \|", (folder / "README.md").read_text(), flags=re.MULTILINE))
    assert listed == {path.name for path in folder.iterdir()} - {"README.md"}


@pytest.mark.skipif(not TABLES_8500.is_dir(), reason="needs the tables of the IEEE 8500-node feeder")
def test_ieee8500_made_from_its_tables_again_is_what_is_shipped(tmp_path: Path) -> None:
    script = DSS_MODELS.parent / "scripts" / "make_ieee8500.py"
    subprocess.run([sys.executable, str(script), str(TABLES_8500), "--target", str(tmp_path)], check=True, timeout=120)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_bytes() for path in (DSS_MODELS / "ieee8500").iterdir()}
    del shipped["README.md"]
    assert made == shipped
