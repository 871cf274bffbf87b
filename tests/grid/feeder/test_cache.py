"""What compiling found out is kept by content: equal bits with and without, and nothing ever breaks by it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from powergrid.grid.circuit.circuit import Circuit, Snapshot, network_of
from powergrid.grid.circuit.injections import Injection
from powergrid.grid.engine import cache_folder, library
from powergrid.grid.feeder.compile import encode_network, known_network
from powergrid.grid.feeder.feeder import list_feeders, read_feeder
from powergrid.grid.feeder.network import Network
from tests.grid.feeder.conftest import forget, points_of, spoil

MODEL = """New Circuit.tiny basekv=12.47
New LoadShape.s npts=3 interval=1 mult=(file=sun.csv)
New Line.l1 bus1=sourcebus bus2=größe length=1 units=km R1=0.3 X1=0.4
New Load.a bus1=größe kV=12.47 kW=200 kvar=100 daily=s
Set VoltageBases=[12.47]
CalcVoltageBases
"""


def networks(folder: Path) -> list[Path]:
    """The files of descriptions that are kept."""
    return list(folder.glob("network-*.npz"))


def write_model(tmp_path: Path) -> Path:
    (tmp_path / "sun.csv").write_text("0.5\n1\n0\n")
    (tmp_path / "Master.dss").write_text(MODEL, encoding="utf-8")
    return tmp_path / "Master.dss"


def play(circuit: Circuit, n_steps: int = 8) -> bytes:
    """Solve random demand and switchgear; convergence, all voltages and flows, bit for bit."""
    rng, loads = np.random.default_rng(0), circuit.network.loads
    snapshot = Snapshot.allocate(1, circuit.network, len(circuit.injections))
    seen = b""
    for _ in range(n_steps):
        circuit.write_demand(loads.kw * rng.uniform(0.3, 1.1, len(loads.kw)), loads.kvar)
        circuit.write_injections(rng.uniform(-50, 50, len(circuit.injections)), np.zeros(len(circuit.injections)))
        circuit.switchgear.write_taps(rng.integers(-4, 5, len(circuit.taps)))
        circuit.switchgear.write_steps(rng.integers(0, 2, len(circuit.steps_on)))
        seen += bytes([circuit.solve(controls=bool(rng.integers(2)))])
        circuit.read(snapshot, 0)
        seen += snapshot.v.tobytes() + snapshot.loading_pu.tobytes() + snapshot.terminal_kva.tobytes()
    return seen


def assert_same(first: Network, second: Network) -> None:
    """Compare two networks to the last bit of each array."""
    (text, arrays), (other_text, others) = encode_network(first), encode_network(second)
    assert text == other_text
    for name, array in arrays.items():
        assert array.dtype == others[name].dtype
        assert array.shape == others[name].shape
        assert array.tobytes() == others[name].tobytes()


@pytest.mark.parametrize("name", list_feeders())
def test_circuit_is_the_same_to_the_bit_without_with_memory_and_from_disk(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder = read_feeder(name)
    bus = network_of(feeder).nodes[-1].rpartition(".")
    devices = (Injection("pv", bus=bus[0], phases=(int(bus[2]),)),)
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, "")
    forget()
    without = Circuit(feeder, devices)
    expected = play(without)
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(folder))
    from_disk = []
    for anew in (True, False):
        if anew:
            forget()
        circuit = Circuit(feeder, devices)
        assert_same(circuit.network, without.network)
        assert play(circuit) == expected
        from_disk.append(circuit.network)
    assert from_disk[0] is from_disk[1]


def test_edit_of_a_data_file_is_seen(tmp_path: Path, folder: Path) -> None:
    master = write_model(tmp_path)
    assert points_of(network_of(read_feeder(master)), "s").tolist() == [0.5, 1.0, 0.0]
    (tmp_path / "sun.csv").write_text("0.5\n1\n0.25\n")
    assert points_of(network_of(read_feeder(master)), "s").tolist() == [0.5, 1.0, 0.25]
    assert len(networks(folder)) == 2


def test_known_feeder_is_not_compiled_again(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feeder = read_feeder(write_model(tmp_path))
    first = network_of(feeder)
    forget()
    (file,) = networks(folder)
    os.utime(file, (0, 0))
    second = network_of(feeder)
    assert_same(first, second)
    assert second is not first
    assert file.stat().st_mtime > 0  # it was read


def test_shared_network_cannot_be_written_and_ratings_stay_with_their_circuit(folder: Path) -> None:
    feeder = read_feeder("ieee13")
    one, other = Circuit(feeder), Circuit(feeder)
    assert one.network is other.network
    with pytest.raises(ValueError, match="read-only"):
        one.network.loads.kw[0] = 1.0
    before = other.network.branches.norm_amps.copy()
    one.set_ratings({one.network.branches.names[0]: 123.0})
    assert one.network.branches.norm_amps[0] == 123.0
    assert other.network.branches.norm_amps.tobytes() == before.tobytes()
    assert Circuit(feeder).network.branches.norm_amps.tobytes() == before.tobytes()


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "text", "folder"])
def test_entry_that_is_damaged_is_made_again(tmp_path: Path, folder: Path, damage: str) -> None:
    feeder = read_feeder(write_model(tmp_path))
    first = network_of(feeder)
    (file,) = networks(folder)
    spoil(file, damage)
    forget()
    assert_same(network_of(feeder), first)
    if damage != "folder":
        forget()
        assert known_network(feeder) is not None


def test_entry_that_holds_a_pickle_is_not_opened(tmp_path: Path, folder: Path) -> None:
    feeder = read_feeder(write_model(tmp_path))
    first = network_of(feeder)
    (file,) = networks(folder)
    with np.load(file) as entry:
        whole = {name: entry[name] for name in entry.files}
    np.savez(file, allow_pickle=True, **whole | {"text": np.array([object()])})
    forget()
    assert_same(network_of(feeder), first)


@pytest.mark.parametrize(
    "layout",
    [b"[]", b"{}", b'[["a0", "<f8", [9], 99999]]', b'[["a0", "|O", [1], 8]]', b'[["a0", "<f8", [-1, -1], 16]]'],
)
def test_entry_whose_arrays_are_not_where_it_says_is_made_again(tmp_path: Path, folder: Path, layout: bytes) -> None:
    feeder = read_feeder(write_model(tmp_path))
    first = network_of(feeder)
    (file,) = networks(folder)
    with np.load(file) as entry:
        whole = {name: entry[name] for name in entry.files}
    np.savez(file, **whole | {"layout": np.frombuffer(layout, dtype=np.uint8)})
    forget()
    assert_same(network_of(feeder), first)


@pytest.mark.parametrize("place", ["file", "below a file", "empty"])
def test_cache_without_a_place_is_silently_none(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "taken").write_text("")
    written = {"file": tmp_path / "taken", "below a file": tmp_path / "taken" / "x", "empty": ""}[place]
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(written))
    assert network_of(read_feeder(write_model(tmp_path))).loads.names == ("a",)
    assert not folder.exists()
    assert (tmp_path / "taken").read_text() == ""


def test_oldest_entries_go_when_there_are_too_many(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_folder, "MAX_FILES", 4)
    master = write_model(tmp_path)
    for i in range(4):
        (tmp_path / "sun.csv").write_text(f"0.5\n1\n{i}\n")
        network_of(read_feeder(master))
        newest = max(networks(folder), key=lambda file: file.stat().st_mtime_ns)
        os.utime(newest, (i, i))
    (scan,) = folder.glob("scan-*.npz")  # one for each master file
    assert sorted(file.stat().st_mtime for file in folder.iterdir() if file != scan) == [1.0, 2.0, 3.0]


def test_writers_at_the_same_time_share_one_entry(tmp_path: Path, folder: Path) -> None:
    master = write_model(tmp_path)
    code = (
        "import sys; from powergrid.grid.feeder.compile import networks\n"
        "from powergrid.grid.circuit.circuit import network_of\n"
        "from powergrid.grid.feeder import read_feeder; feeder = read_feeder(sys.argv[1]); sys.stdin.readline()\n"
        "for _ in range(50): networks.keep('all the same', network_of(feeder)); networks.forget()\n"
        "print(networks.recall('all the same').loads.kw.sum())"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(master)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert [worker.communicate()[0].strip() for worker in workers] == ["200.0"] * 4
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sorted(file.name.partition("-")[0] for file in folder.glob("*.npz")) == [
        "network",
        "network",
        "scan",
        "schema",
    ]
    assert len(list(folder.iterdir())) == 4


def test_folder_is_the_users_own_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, "~/here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder.cache_folder() == tmp_path / "here"
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, "")
    assert cache_folder.cache_folder() is None
    monkeypatch.delenv(cache_folder.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder.cache_folder() == tmp_path / "xdg" / "powergrid"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert cache_folder.cache_folder() == tmp_path / ".cache" / "powergrid"


def test_engines_own_words_are_the_same_from_disk(folder: Path) -> None:
    words = (library.numbers(), library.property_tables(), library.element_classes())
    try:
        for entries in ([], ["schema"]):
            assert [file.name.partition("-")[0] for file in folder.glob("*")] == entries
            library.forget()
            assert (library.numbers(), library.property_tables(), library.element_classes()) == words
        assert library.property_tables()["generator"]["usermodel"]
        assert not library.property_tables()["generator"]["kw"]
        assert library.property_type("Line", "LineCode") == ("DSSObjectReference", "LineCode")
    finally:
        library.forget()


def test_damaged_words_of_the_engine_are_asked_for_again(folder: Path) -> None:
    words = library.property_tables()
    try:
        library.forget()
        library.property_tables()
        (file,) = folder.glob("schema-*.npz")
        with np.load(file) as entry:
            whole = {name: entry[name] for name in entry.files}
        np.savez(file, **whole | {"text": np.frombuffer(b'[["Line", 1, [["bus1"]]]]', dtype=np.uint8)})
        library.forget()
        assert library.property_tables() == words
    finally:
        library.forget()
