"""What reading a feeder gave is kept: equal with and without, never for other files, never for what is refused."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from powergrid.errors import FeederError
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.engine import cache_folder
from powergrid.grid.feeder import feeder
from powergrid.grid.feeder.feeder import list_feeders, models_folder, read_feeder
from tests.grid.feeder.conftest import forget, spoil

MASTER = """New Circuit.tiny basekv=12.47
New LoadShape.s npts=3 interval=1 mult=(file=sun.csv)
Redirect Lines.dss
New Load.a bus1=größe kV=12.47 kW=200 kvar=100 daily=s
Set VoltageBases=[12.47]
CalcVoltageBases
Solve
"""
LINES = "New Line.l1 bus1=sourcebus bus2=größe length=1 units=km R1=0.3 X1=0.4\n"


def key_of(master: Path) -> str:
    """The key of what reading a feeder gave, its root the folder above its own."""
    place = feeder.Place(master, master.parent.parent, models_folder().resolve(), False)
    return feeder.entry_key(*map(str, place))


def write_model(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "sun.csv").write_text("0.5\n1\n0\n")
    (place / "Lines.dss").write_text(LINES, encoding="utf-8")
    (place / "Master.dss").write_text(MASTER, encoding="utf-8")
    return place / "Master.dss"


def scans(folder: Path) -> list[Path]:
    return list(folder.glob("scan-*.npz"))


def forbid_scanning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail where a feeder's text is cut into commands and checked."""
    monkeypatch.setattr(feeder, "read_files", lambda *_: pytest.fail("the text was scanned again"))


@pytest.mark.parametrize("name", list_feeders())
def test_feeder_read_before_is_the_same_without_being_scanned(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_feeder(name)
    forbid_scanning(monkeypatch)
    remembered = read_feeder(name)
    forget()
    from_disk = read_feeder(name)
    assert first == remembered == from_disk
    assert from_disk.commands is not first.commands
    assert [type(command.line) for command in from_disk.commands[:1]] == [int]


def test_second_process_does_not_scan(tmp_path: Path, folder: Path) -> None:
    code = (
        "import sys; from powergrid.grid.feeder import feeder\n"
        "def refuse(*_): raise SystemExit('scanned')\n"
        "if sys.argv[2] == 'known': feeder.read_files = refuse\n"
        "print(feeder.read_feeder(sys.argv[1]).digest)"
    )
    master = write_model(tmp_path)
    printed = [
        subprocess.run(
            [sys.executable, "-c", code, str(master), how], capture_output=True, text=True, check=True
        ).stdout
        for how in ("new", "known")
    ]
    assert printed[0] == printed[1] != ""


@pytest.mark.parametrize("file", ["Master.dss", "Lines.dss", "sun.csv"])
@pytest.mark.parametrize("remembered", [True, False])
def test_edit_that_keeps_size_and_time_is_seen(tmp_path: Path, folder: Path, file: str, remembered: bool) -> None:
    master = write_model(tmp_path)
    first = read_feeder(master)
    status = (tmp_path / file).stat()
    text = (tmp_path / file).read_bytes()
    edited = (
        text.replace(b"0.5", b"0.7")
        if file == "sun.csv"
        else text.replace(b"12.47", b"12.74").replace(b"X1=0.4", b"X1=0.9")
    )
    (tmp_path / file).write_bytes(edited)
    os.utime(tmp_path / file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ((tmp_path / file).stat().st_size, len(text)) == (status.st_size, len(edited))
    if not remembered:
        forget()
    second = read_feeder(master)
    assert second.digest != first.digest
    (tmp_path / file).write_bytes(text)
    assert read_feeder(master) == first


@pytest.mark.parametrize("file", ["Lines.dss", "sun.csv"])
def test_file_that_is_gone_is_missed(tmp_path: Path, folder: Path, file: str) -> None:
    master = write_model(tmp_path)
    read_feeder(master)
    (tmp_path / file).unlink()
    with pytest.raises(FeederError, match=f"missing file '{file}'"):
        read_feeder(master)


def test_what_trust_allows_is_not_taken_without_trust(tmp_path: Path, folder: Path) -> None:
    master = write_model(tmp_path / "model" / "own")
    (tmp_path / "Lines.dss").write_text(LINES, encoding="utf-8")
    master.write_text(MASTER.replace("Redirect ", f"Redirect {tmp_path}/"), encoding="utf-8")
    trusted = read_feeder(master, trust=True)
    assert "Solve" in [command.text for command in trusted.commands]
    wide = read_feeder(master, model_root=tmp_path)
    for again in (False, True):
        if again:
            forget()
        with pytest.raises(FeederError, match="outside the model_root"):
            read_feeder(master)
        with pytest.raises(FeederError, match="outside the model_root"):
            read_feeder(master, model_root=tmp_path / "model")
        assert read_feeder(master, trust=True) == trusted
        assert read_feeder(master, model_root=tmp_path) == wide != trusted


def test_refused_feeder_is_not_kept(tmp_path: Path, folder: Path) -> None:
    master = write_model(tmp_path)
    with master.open("a") as stream:
        stream.write("New Generator.g bus1=größe kW=1 usermodel=x.so\n")
    for _ in range(2):
        with pytest.raises(FeederError, match="program library"):
            read_feeder(master)
    assert scans(folder) == []


@pytest.mark.parametrize("linked", ["Lines.dss", "sun.csv"])
@pytest.mark.parametrize("remembered", [True, False])
def test_link_turned_to_an_equal_file_outside_is_refused(
    tmp_path: Path, folder: Path, linked: str, remembered: bool
) -> None:
    master = write_model(tmp_path / "root" / "model")
    real = master.parent / f"real_{linked}"
    (master.parent / linked).rename(real)
    (master.parent / linked).symlink_to(real)
    read_feeder(master)
    shutil.copy(real, tmp_path / "outside")
    (master.parent / linked).unlink()
    (master.parent / linked).symlink_to(tmp_path / "outside")
    if not remembered:
        forget()
    with pytest.raises(FeederError, match="outside the model_root"):
        read_feeder(master)


def test_file_that_now_comes_first_is_taken(tmp_path: Path, folder: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "links").mkdir()
    master = tmp_path / "links" / "Master.dss"
    master.symlink_to(tmp_path / "model" / "Master.dss")
    assert read_feeder(master).files[2] == tmp_path / "model" / "Lines.dss"
    (tmp_path / "links" / "Lines.dss").write_text(LINES.replace("X1=0.4", "X1=0.9"), encoding="utf-8")
    found = read_feeder(master)
    assert found.files[2] == tmp_path / "links" / "Lines.dss"
    assert any("X1=0.9" in command.text for command in found.commands)


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "text", "folder", "pickle", "json", "other"])
def test_entry_that_is_damaged_is_made_again(tmp_path: Path, folder: Path, damage: str) -> None:
    master = write_model(tmp_path)
    first = read_feeder(master)
    (file,) = scans(folder)
    forget()
    if damage in ("pickle", "json", "other"):
        text = {"pickle": np.array([object()]), "json": np.frombuffer(b'{"a"', dtype=np.uint8)}.get(
            damage, np.frombuffer(b'{"commands": [[0], [1], "x\\ny"], "places": []}', dtype=np.uint8)
        )
        with np.load(file) as entry:
            whole = {name: entry[name] for name in entry.files}
        np.savez(file, allow_pickle=True, **whole | {"text": text})
    else:
        spoil(file, damage)
    assert read_feeder(master) == first


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_flipped_bit_never_changes_a_command(tmp_path: Path, folder: Path, place: int) -> None:
    master = write_model(tmp_path)
    first = read_feeder(master)
    (file,) = scans(folder)
    whole = bytearray(file.read_bytes())
    whole[len(whole) * place // 100] ^= 1
    file.write_bytes(whole)
    forget()
    assert read_feeder(master) == first


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
def test_entry_that_others_could_have_written_is_not_taken(tmp_path: Path, folder: Path) -> None:
    master = write_model(tmp_path)
    first = read_feeder(master)
    (file,) = scans(folder)
    with np.load(file) as entry:
        whole = {name: entry[name] for name in entry.files}
    text = bytes(whole["text"]).replace(b"kW=200", b"kW=900")
    np.savez(file, **whole | {"text": np.frombuffer(text, dtype=np.uint8)})
    forget()
    assert any("kW=900" in command.text for command in read_feeder(master).commands)  # the user's own: as written
    file.chmod(0o666)
    forget()
    assert read_feeder(master) == first


def test_entry_of_another_engine_or_release_is_not_found(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master = write_model(tmp_path)
    read_feeder(master)
    forget()
    monkeypatch.setattr(feeder, "engine_version", lambda: "OpenDSS of tomorrow")
    assert feeder.scans.recall(key_of(master)) is None
    read_feeder(master)
    assert len(scans(folder)) == 2


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nothing can be made")
@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null", "/dev/null/x"])
def test_cache_that_cannot_be_written_is_silently_none(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, place)
    master = write_model(tmp_path)
    first = read_feeder(master)
    forget()
    assert read_feeder(master) == first
    assert network_of(first).loads.names == ("a",)


def test_disk_that_is_full_leaves_no_half_entry(tmp_path: Path, folder: Path) -> None:
    code = (
        "import sys, resource; from powergrid.grid.feeder.feeder import read_feeder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); print(read_feeder(sys.argv[1]).digest)"
    )
    master = write_model(tmp_path)
    done = subprocess.run([sys.executable, "-c", code, str(master)], capture_output=True, text=True, check=True)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100
    assert done.stdout.strip() == read_feeder(master).digest
    assert [file.name[:5] for file in folder.iterdir()] == ["scan-"]  # that of this process


def test_workers_that_start_together_scan_and_compile_once(tmp_path: Path, folder: Path) -> None:
    code = (
        "import sys; from powergrid.grid.circuit import circuit, compiled; from powergrid.grid.feeder import feeder\n"
        "done = []\n"
        "def counted(name, function):\n"
        "    def count(*args, **keys):\n"
        "        done.append(name); return function(*args, **keys)\n"
        "    return count\n"
        "feeder.read_files = counted('scan', feeder.read_files)\n"
        "compiled.compile_feeder = counted('compile', compiled.compile_feeder)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "network = circuit.network_of(feeder.read_feeder(sys.argv[1]))\n"
        "print(network.loads.kw.sum(), *done)"
    )
    command = [sys.executable, "-c", code, "ieee123"]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    told = [worker.communicate()[0].split() for worker in workers]
    assert len({kw for kw, *_ in told}) == 1
    assert sorted(name for _, *names in told for name in names) == ["compile", "scan"]
    assert {file.suffix for file in folder.iterdir()} == {".npz"}


def test_worker_that_hangs_keeps_the_others_waiting_no_longer_than_patience(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_folder, "PATIENCE_S", 0.1)
    master = write_model(tmp_path)
    with feeder.scans.alone(key_of(master)):  # as another worker would
        assert read_feeder(master).commands
    assert not list(folder.glob("*.lock"))


def test_lock_left_by_a_worker_that_died_is_no_obstacle(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_folder, "PATIENCE_S", 600.0)
    master = write_model(tmp_path)
    code = "import os, sys; from powergrid.grid.feeder.feeder import scans\nwith scans.alone(sys.argv[1]): os._exit(0)"
    subprocess.run([sys.executable, "-c", code, key_of(master)], check=True)
    assert len(list(folder.glob("*.lock"))) == 1
    read_feeder(master)
    assert not list(folder.glob("*.lock"))


def test_name_of_several_lines_is_kept_as_any_other(tmp_path: Path, folder: Path) -> None:
    master = write_model(tmp_path / "two\nlines")
    first = read_feeder(master)
    assert len(scans(folder)) == 1
    forget()
    assert read_feeder(master) == first
