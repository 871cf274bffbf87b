"""Engine contexts: sandboxed, independent of each other, reproducible, and gone when closed."""

from __future__ import annotations

import gc
import hashlib
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from powergrid.errors import EngineError, FeederError
from powergrid.grid.circuit.circuit import Circuit, Snapshot
from powergrid.grid.engine import Engine, classify_refusal, context, engine_version
from powergrid.grid.engine.library import PRIVATE_NAMES, lib
from powergrid.grid.engine.saved import read_data
from powergrid.grid.feeder.compile import compile_feeder
from powergrid.grid.feeder.feeder import Command, Feeder, read_feeder

WORDY_MASTER = """Clear
New Circuit.tiny basekv=12.47 R1=0.01 X1=0.1
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4
Redirect "größe 1.dss"
New LoadShape.s npts=2 interval=1 mult=(file=shape.csv) action=dblsave
New Generator.g bus1=b kV=12.47 kW=10 debugtrace=yes
New Storage.s bus1=b kV=12.47 debugtrace=yes
New EnergyMeter.m element=Line.l1
New Monitor.m element=Line.l1
Set Datapath=made_here
Set VoltageBases=[12.47] editor=/bin/false DemandInterval=yes
CalcVoltageBases
Set mode=daily number=24
Solve
Distribute kW=100
Show Voltages LN
Plot Profile
Export Voltages
Save Circuit dir=saved
Dump
doscmd touch ran
Set Recorder=yes Log=yes
"""


def hash_tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def write_wordy_feeder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "größe 1.dss").write_text("New Load.a bus1=b kV=12.47 kW=200 kvar=100", encoding="utf-8")
    (folder / "shape.csv").write_text("0.5\n1.0\n")
    (folder / "Master.dss").write_text(WORDY_MASTER, encoding="utf-8")
    return folder / "Master.dss"


def trajectory(circuit: Circuit, seed: int, n_steps: int = 20) -> np.ndarray[tuple[int, int], np.dtype[np.complex128]]:
    """Solve random demand and switchgear from the start on; every voltage of every step."""
    rng, loads = np.random.default_rng(seed), circuit.network.loads
    snapshot = Snapshot.allocate(1, circuit.network, len(circuit.injections))
    circuit.reset()
    seen = []
    for _ in range(n_steps):
        circuit.write_demand(loads.kw * rng.uniform(0.3, 1.2, len(loads.kw)), loads.kvar)
        circuit.switchgear.write_taps(rng.integers(-8, 9, len(circuit.taps)))
        assert circuit.solve()
        circuit.read(snapshot, 0)
        seen.append(snapshot.v[0].copy())
    return np.array(seen)


def solve_in_child(circuit: Circuit) -> bytes:
    return trajectory(circuit, seed=3).tobytes()


# -- the sandbox


def test_compile_of_a_wordy_feeder_writes_nothing_and_stays_in_its_folder(tmp_path: Path) -> None:
    master = write_wordy_feeder(tmp_path / "my grid ä")
    here, before = Path.cwd(), hash_tree(tmp_path)
    here_before = sorted(here.iterdir())
    circuit = Circuit(read_feeder(master))
    assert circuit.solve()
    circuit.close()
    assert Path.cwd() == here
    assert sorted(here.iterdir()) == here_before
    assert hash_tree(tmp_path) == before


def test_compile_from_a_read_only_folder_solves(tmp_path: Path) -> None:
    master = write_wordy_feeder(tmp_path / "grid")
    for path in (*master.parent.iterdir(), master.parent):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        circuit = Circuit(read_feeder(master))
        assert circuit.network.loads.kw[0] == 200.0
        assert circuit.solve()
    finally:
        master.parent.chmod(0o755)


def test_engine_refuses_shell_commands(tmp_path: Path) -> None:
    engine = Engine()
    engine.set_folder(tmp_path)
    with pytest.raises(EngineError, match="DOScmd"):
        engine.command("doscmd touch ran")
    assert not (tmp_path / "ran").exists()


def test_error_in_the_middle_names_file_line_and_number(tmp_path: Path) -> None:
    (tmp_path / "Loads.dss").write_text("! ok\nNew Load.a bus1=b kV=12.47\nNew Load.b bus1=b colour=red\n")
    master = tmp_path / "m.dss"
    master.write_text("New Circuit.x\nRedirect Loads.dss\n")
    with pytest.raises(FeederError) as caught:
        Circuit(read_feeder(master))
    assert caught.value.where == f"{tmp_path / 'Loads.dss'}:3"
    assert "'New Load.b bus1=b colour=red'" in str(caught.value)
    assert "colour" in str(caught.value)
    assert "(OpenDSS error 110)" in str(caught.value)


def test_duplicate_name_is_refused_with_file_and_line(tmp_path: Path) -> None:
    master = tmp_path / "m.dss"
    master.write_text("New Circuit.x\nNew Line.l bus1=sourcebus bus2=b\nNew Line.L bus1=sourcebus bus2=c\n")
    with pytest.raises(FeederError, match=r"m\.dss:3: .*Duplicate.*OpenDSS error 266"):
        Circuit(read_feeder(master))


def test_failed_compile_leaves_the_engine_usable(tmp_path: Path) -> None:
    engine, path = Engine(), tmp_path / "x.dss"
    bad = Feeder("bad", path, (Command(path, 1, "new circuit.x"), Command(path, 2, "new nonsense.x")), (), "")
    with pytest.raises(FeederError, match=r"x\.dss:2"):
        compile_feeder(bad, engine)
    compile_feeder(read_feeder("ieee13"), engine)
    assert engine.solve()


# -- several contexts


def test_circuits_in_one_process_do_not_touch_each_other() -> None:
    a, b = Circuit(read_feeder("ieee13")), Circuit(read_feeder("ieee13"))
    assert a.solve()
    v = a.v.copy()
    b.write_demand(b.network.loads.kw * 0.2, b.network.loads.kvar)
    b.switchgear.write_taps(np.array([-5, 0, 5]))
    assert b.solve()
    b.engine.command("edit Line.650632 enabled=no")
    assert a.v.tobytes() == v.tobytes()
    assert a.solve()
    assert np.abs(a.v - v).max() < 1e-6 * np.abs(v).max()


def test_same_seed_in_two_contexts_gives_the_same_bits() -> None:
    a, b = Circuit(read_feeder("ieee13")), Circuit(read_feeder("ieee13"))
    assert trajectory(a, seed=1).tobytes() == trajectory(b, seed=1).tobytes()
    assert trajectory(a, seed=1).tobytes() != trajectory(b, seed=2).tobytes()


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_pickled_circuit_gives_the_same_bits_in_a_child_process(method: str) -> None:
    circuit = Circuit(read_feeder("ieee13"), tolerance=1e-7)
    expected = solve_in_child(circuit)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(solve_in_child, circuit).result() == expected


def test_circuit_that_was_pickled_solves_alike() -> None:
    circuit = Circuit(read_feeder("ieee34"), tolerance=1e-7, max_iterations=50)
    again = pickle.loads(pickle.dumps(circuit))
    assert again.solve() == circuit.solve()
    assert again.v.tobytes() == circuit.v.tobytes()


def test_engine_refuses_to_pickle() -> None:
    with pytest.raises(TypeError, match="does not pickle"):
        pickle.dumps(Engine())


# -- the outside


def test_direct_looks_at_the_same_circuit() -> None:
    circuit = Circuit(read_feeder("ieee13"))
    assert circuit.engine.direct is circuit.engine.direct
    assert circuit.engine.direct.Circuit.Name() == "ieee13"


def test_engine_closes_twice_and_after_direct() -> None:
    engine = Engine()
    engine.close()
    engine.close()
    circuit = Circuit(read_feeder("ieee13"))
    assert circuit.engine.direct.Circuit.NumNodes() == 41
    circuit.close()
    circuit.close()


def test_circuit_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        circuit = Circuit(read_feeder("ieee13"))
        engine = weakref.ref(circuit.engine)
        del circuit
        assert engine() is None
    finally:
        gc.enable()


def test_engine_closed_in_another_thread_is_disposed_of_by_its_own() -> None:
    engine = Circuit(read_feeder("ieee13")).engine
    thread = threading.Thread(target=engine.close)
    thread.start()
    thread.join()
    own = threading.get_ident()
    assert len(context._LEFT[own]) == 1
    assert Circuit(read_feeder("ieee13")).solve()
    assert own not in context._LEFT


def test_version_is_that_of_the_engine() -> None:
    assert "DSS C-API" in engine_version()


def test_unknown_property_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match=r"no property Load\.colour"):
        Engine.property_index("Load", "colour")


# -- memory


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures memory through /proc")
@pytest.mark.slow
def test_recompiling_solving_and_reopening_does_not_grow() -> None:
    feeder = read_feeder("ieee13")
    for _ in range(30):
        Circuit(feeder).close()
    before = resident_mb()
    for _ in range(200):
        Circuit(feeder).close()
    circuit = Circuit(feeder)
    snapshot, loads = Snapshot.allocate(1, circuit.network, 0), circuit.network.loads
    for i in range(20_000):
        circuit.write_demand(loads.kw * (1.0 + 0.001 * (i % 10)), loads.kvar)
        circuit.solve()
        circuit.read(snapshot, 0)
    for i in range(2000):
        circuit.switchgear.write_taps(np.full(3, i % 2))
        circuit.solve()
    engine = circuit.engine
    for _ in range(50):
        compile_feeder(feeder, engine)
    assert resident_mb() - before < 10.0


def test_first_engine_of_a_process_leaves_the_working_directory_where_it_is(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "import powergrid.grid.engine as engine\n"  # loads the library, in the folder that Python was started in
        "os.chdir(sys.argv[1])\n"
        "from powergrid.grid.circuit.circuit import Circuit\n"
        "from powergrid.grid.feeder.feeder import read_feeder\n"
        "Circuit(read_feeder('ieee13')).close()\n"
        "print(os.getcwd())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == tmp_path.resolve()


def test_thread_enters_the_engine_after_the_environment_has_moved() -> None:
    """A new thread's first call reads the environment that the library was loaded with; it must still be there."""
    code = """
import os, threading
os.environ["POWERGRID_TEST"] = "the array moves to where it can be freed"
from powergrid.grid.engine import Engine
engine = Engine()
engine.command("new circuit.c")
for i in range(3000):  # it moves on as it grows, and where it was is written over
    os.environ[f"POWERGRID_TEST_{i}"] = "x" * 50
filled = [bytes([255]) * size for size in range(16, 4096, 8) for _ in range(20)]
solved = []
for _ in range(20):
    thread = threading.Thread(target=lambda: solved.append(engine.solve()))
    thread.start()
    thread.join()
print(all(solved), len(solved))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True 20\n"), done.stderr[-2000:]


# -- what the engine's packages do not document


@pytest.mark.parametrize("package", PRIVATE_NAMES)
def test_private_names_of_the_engines_packages_are_those_of_the_version_tried(package: str) -> None:
    tried, names = PRIVATE_NAMES[package]
    assert importlib.metadata.version(package) == tried, "try each name below anew, then note the version"
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_function_of_the_c_library_that_is_called_is_there() -> None:
    folder = Path(context.__file__).parent
    called = {name for file in folder.glob("*.py") for name in re.findall(r"\blib\.(\w+)", file.read_text())}
    kinds = {"ctx_Fuses", "ctx_Relays", "ctx_Reclosers"}
    called |= {f"{kind}_{what}" for kind in kinds for what in ("Set_Name", "Reset")}  # called by the class's name
    assert len(called) > 60
    assert [name for name in sorted(called) if not hasattr(lib, name)] == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("New Load.a bus1=b kW=5 colour=red", "unknown-property"),
        ("New Laod.a bus1=b", "unknown-property"),
        ("New Line.l linecode=none", "unknown-name"),
        ("New LoadShape.s npts=2 mult=(file=/nowhere.csv)", "missing-data-file"),
    ],
)
def test_refusal_of_the_engine_has_a_code(command: str, code: str) -> None:
    engine = Engine()
    try:
        engine.command("New Circuit.c")
        with pytest.raises(EngineError) as refused:
            engine.command(command)
        assert classify_refusal(refused.value) == code
    finally:
        engine.close()


def test_handles_follow_what_commands_add_disable_and_drop() -> None:
    engine = Engine()
    for text in ("New Circuit.a", "New Load.one bus1=a", "New Load.two bus1=b enabled=no"):
        engine.command(text)
    assert list(engine.handles("Load")) == ["one"]
    engine.command("edit load.two enabled=yes")
    assert list(engine.handles("Load")) == ["one", "two"]
    engine.disable(engine.handles("Load")["one"], "Load")
    assert list(engine.handles("Load")) == ["two"]
    engine.command("New Load.three bus1=a")
    assert list(engine.handles("Load")) == ["two", "three"]
    # As many as before, of another circuit: a handle of the old one would be freed memory.
    for text in ("Clear", "New Circuit.b", *(f"New Load.x{i} bus1=a" for i in range(3))):
        engine.command(text)
    assert list(engine.handles("Load")) == ["x0", "x1", "x2"]
    engine.direct.Text.Command("Clear")
    for text in ("New Circuit.c", *(f"New Load.y{i} bus1=a" for i in range(3))):
        engine.direct.Text.Command(text)
    assert list(engine.handles("Load")) == ["y0", "y1", "y2"]
    engine.close()


def test_open_and_closed_among_elements_of_several_terminals() -> None:
    engine = Engine()
    for text in (
        "New Circuit.a basekv=12.47",
        *(f"New Line.l{i} bus1=sourcebus bus2=b{i} length=1" for i in range(3)),
        "New Transformer.t windings=3 buses=[b0 c d] kvs=[12.47 0.4 0.4]",
        "Open Line.l1 2",
        "Open Line.l2 1 3",
        "Open Transformer.t 3",
    ):
        engine.command(text)
    lines, transformers = list(engine.handles("Line").values()), list(engine.handles("Transformer").values())
    assert engine.open_among(lines) == [False, True, True]
    assert engine.closed_among(lines) == [True, False, True]
    assert engine.open_among(transformers) == [True]
    assert engine.closed_among(transformers) == [False]
    engine.close()


def test_matrices_that_are_written_from_memory_that_nobody_filled_are_those_of_the_elements() -> None:
    engine = Engine()
    try:
        engine.command("New Circuit.nan_inf")
        engine.command("New Capacitor.c Bus1=sourcebus Phases=2 kV=115 CMatrix=[2 | -0.25 2]")
        whole = engine.to_json()
        assert whole["Capacitor"][0]["CMatrix"] == [[2.0, -0.25], [-0.25, 2.0]]
        written = json.dumps(whole)
        garbage = written.replace("[[2.0, -0.25], [-0.25, 2.0]]", "[[Nan, 6.3E-308], [+Inf, -Inf]]")
        assert garbage != written
        assert read_data(engine, garbage) == whole  # "nan_inf" is a name
        with pytest.raises(ValueError, match="not JSON compliant"):
            read_data(engine, garbage.replace('"kV": 115.0', '"kV": Nan'))
    finally:
        engine.close()
