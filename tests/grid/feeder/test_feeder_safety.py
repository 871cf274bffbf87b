"""A model is a program: what it may read, write and run by default, and what trust allows."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from powergrid.errors import EngineError, FeederError
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.feeder import Feeder, read_feeder
from powergrid.grid.feeder.reading.statements import cut, find_properties
from powergrid.grid.feeder.reading.syntax import NEVER_RUN, NEVER_SET, OPTIONS, VERBS, find_danger
from tests.grid.feeder.conftest import points_of

HEAD = """Clear
New Circuit.tiny basekv=12.47 pu=1.0 R1=0.01 X1=0.1
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4
New Load.a bus1=b kV=12.47 kW=200 kvar=100
"""
TAIL = """
Set VoltageBases=[12.47]
CalcVoltageBases
"""
SHAPE = "New LoadShape.s npts=3 interval=1"

#: Lines that make OpenDSS read the file {f}.
READING = [
    f"{SHAPE} csvfile={{f}}",
    f"{SHAPE} CSV = {{f}}",
    f"{SHAPE} c={{f}}",
    f'{SHAPE} "csvfile"={{f}}',
    f"{SHAPE} (csvfile) = [{{f}}]",
    f"{SHAPE} csvfile={{f}}!comment",
    f"{SHAPE} sngfile={{f}}",
    f"{SHAPE} dblfile='{{f}}'",
    f"{SHAPE} pqcsvfile={{f}}",
    f"{SHAPE} memorymapping=yes csvfile={{f}}",
    f"{SHAPE} memorymapping=yes mult=(file={{f}})",
    f"{SHAPE} mult=(file={{f}})",
    f"{SHAPE} Pmult=[FILE = {{f}} header=yes]",
    f"{SHAPE} mult={{{{file={{f}}}}}}",
    f'{SHAPE} mult="file={{f}}"',
    f"{SHAPE} mult=(file='{{f}}' col=1)",
    f"{SHAPE} mult=(d={{f}})",
    f"{SHAPE} mult=(sng={{f}})",
    f"{SHAPE} Qmult=(file={{f}})",
    f"{SHAPE} hour=(file={{f}})",
    f"{SHAPE} stddev=0 {{f}}",
    "New object=LoadShape.s, npts=3, interval=1, csvfile={f}",
    "New,LoadShape.s npts=3 interval=1 csvfile={f}",
    'New "LoadShape.s" npts=3 interval=1 csvfile={f}',
    f"{SHAPE}\n~ csvfile={{f}}",
    f"{SHAPE}\nMore mult=(file={{f}})",
    f"{SHAPE}\ncsvfile={{f}}",
    f"{SHAPE}\nLoadShape.s.csvfile={{f}}",
    f'{SHAPE}\n"LoadShape.s.csvfile"={{f}}',
    f"{SHAPE}\nEdit LoadShape.s csvfile={{f}}",
    f"{SHAPE}\nBatchEdit LoadShape..* csvfile={{f}}",
    f"{SHAPE}\nOpen Line.l1 1\nClose Line.l1 1\nSelect LoadShape.s\n~ csvfile={{f}}",
    f"{SHAPE}\nEdit Line.l1 units=km\nSet class=loadshape element=s\n~ csvfile={{f}}",
    f"{SHAPE}\nEdit Line.l1 units=km\nSet object=loadshape.s\n~ csvfile={{f}}",
    f"{SHAPE}\nVar @f={{f}}\nEdit LoadShape.s csvfile=@f",
    f"{SHAPE}\nVar @f={{f}}\nEdit LoadShape.s mult=(file=@f)",
    f"{SHAPE}\nVar @m=(file={{f}})\nEdit LoadShape.s mult=@m",
    f"Var @s=LoadShape.s\n{SHAPE}\nEdit Line.l1 units=km\nEdit @s csvfile={{f}}",
    "New XYCurve.x npts=3 csvfile={f}",
    "New XYCurve.x npts=3 yarray=(file={f})",
    "New GrowthShape.x npts=3 csvfile={f}",
    "New TShape.x npts=3 interval=1 csvfile={f}",
    "New TShape.x npts=3 interval=1 temp=(file={f})",
    "New PriceShape.x npts=3 interval=1 price=(file={f})",
    "New Spectrum.x numharm=3 csvfile={f}",
    "New Capacitor.c bus1=b kv=12.47 numsteps=3 kvar=(file={f})",
    "New EnergyMeter.m element=Line.l1 zonelist=(file={f})",
    "BusCoords {f}",
    "LatLongCoords,file={f}",
    "Redirect {f}",
]  # fmt: skip


def write(folder: Path, text: str, name: str = "Master.dss") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


ANY_CASE = "; write it as it is on the disk, or 'ignore_case: true' takes it"


def problems_of(master: Path, **options: object) -> tuple[str, ...]:
    with pytest.raises(FeederError) as caught:
        read_feeder(master, **options)  # type: ignore[arg-type]
    return caught.value.problems


def secret_outside(tmp_path: Path) -> tuple[Path, Path]:
    """A model two levels down and a file beside neither it nor the folder above it."""
    secret = write(tmp_path, "1,1\n2,2\n3,3\n", "secret.csv")
    return tmp_path / "grids" / "north", secret


# -- reading


@pytest.mark.parametrize("line", READING)
def test_file_outside_the_root_is_refused_however_it_is_named(tmp_path: Path, line: str) -> None:
    folder, secret = secret_outside(tmp_path)
    for written in (str(secret), "../../secret.csv", "..\\..\\secret.csv"):
        lines = line.format(f=written)
        master = write(folder, HEAD + lines + TAIL)
        (problem,) = problems_of(master)
        number = 4 + len(lines.splitlines())
        assert problem.startswith(f"{master}:{number}: ")
        assert problem.endswith(
            f"a file outside the model_root {tmp_path / 'grids'}: {written!r}; "
            f"'model_root: {tmp_path}' allows it (--model-root of check, else --set model_root={tmp_path}), "
            "or whoever calls trusts it: --trust, or trust=True in Python"
        )


@pytest.mark.parametrize("line", [line for line in READING if not line.startswith("Redirect")])
def test_file_that_is_refused_is_one_that_the_engine_would_read(tmp_path: Path, line: str) -> None:
    secret = write(tmp_path, "1,1\n2,2\n3,3\n", "secret.csv")
    os.utime(secret, (0, secret.stat().st_mtime))
    (tmp_path / "probe").write_text("x")
    os.utime(tmp_path / "probe", (0, 1))
    (tmp_path / "probe").read_text()
    if (tmp_path / "probe").stat().st_atime == 0:
        pytest.skip("the file system does not tell when a file was read")
    engine = Engine()
    for text in (HEAD + line.format(f=secret)).splitlines():
        with contextlib.suppress(EngineError):  # read, but not what it likes
            engine.command(text)
    assert secret.stat().st_atime > 0


@pytest.mark.parametrize("line", [line for line in READING if "Redirect" not in line])
def test_file_that_is_missing_is_named_with_the_one_in_other_letters(tmp_path: Path, line: str) -> None:
    write(tmp_path / "Data", "1,1\n2,2\n3,3\n", "Sun.csv")
    master = write(tmp_path, HEAD + line.format(f="data/sun.CSV") + TAIL)
    (problem,) = problems_of(master)
    assert problem.endswith(
        "a missing file 'data/sun.CSV' (did you mean 'Data/Sun.csv'? Letter case matters here)" + ANY_CASE
    )


@pytest.mark.parametrize(
    "name", ["sun.csv", "the sun.csv", "größe.csv", "it's.csv", "a(b.csv", "a)b.csv", "a]b}c.csv", "sub/x.csv"]
)
@pytest.mark.parametrize("how", ["csvfile={q}", "mult=[file={q}]", "memorymapping=yes mult=[file={q} header=no]"])
def test_data_file_in_the_root_is_read_whatever_its_name(tmp_path: Path, name: str, how: str) -> None:
    write((tmp_path / "my grid" / name).parent, "0.5\n0.25\n1.0\n", Path(name).name)
    if "[" in how and "]" in name:
        pytest.skip("cannot be written in OpenDSS")
    written = name.replace("/", "\\")
    master = write(
        tmp_path / "my grid", HEAD + f"{SHAPE} " + how.format(q=f'"{written}"') + "\nEdit Load.a yearly=s" + TAIL
    )
    circuit = Circuit(read_feeder(master))
    multipliers = points_of(circuit.network, "s")
    assert multipliers.tolist() == [0.5, 0.25, 1.0]
    circuit.close()


def test_root_that_is_given_is_the_one_that_counts(tmp_path: Path) -> None:
    folder, secret = secret_outside(tmp_path)
    write(folder.parent, "New Load.c bus1=b kV=12.47 kW=5", "shared.dss")
    master = write(folder, HEAD + f"Redirect ../shared.dss\n{SHAPE} mult=(file={secret})" + TAIL)
    feeder = read_feeder(master, model_root=tmp_path)
    assert (feeder.model_root, feeder.trust) == (tmp_path, False)
    assert feeder.files == (master, folder.parent / "shared.dss", secret)
    assert len(problems_of(master)) == 1
    assert len(problems_of(master, model_root=folder)) == 2
    assert "is not a folder" in problems_of(master, model_root=tmp_path / "nowhere")[0]
    assert "lies outside the model_root" in problems_of(master, model_root=Path(__file__).parent)[0]


def test_link_that_leads_out_is_refused_and_one_that_stays_is_followed(tmp_path: Path) -> None:
    folder, secret = secret_outside(tmp_path)
    folder.mkdir(parents=True)
    write(folder.parent / "store", "New Load.c bus1=b kV=12.47 kW=5", "a1b2")
    (folder / "Loads.dss").symlink_to("../store/a1b2")
    (folder / "sun.csv").symlink_to(secret)
    (folder / "data").symlink_to(tmp_path)
    (folder / "circle.dss").symlink_to("circle.dss")
    redirect = f"Redirect Loads.dss\n{SHAPE} csvfile=sun.csv\nNew LoadShape.t npts=3 interval=1 csvfile=data/secret.csv"
    problems = problems_of(write(folder, HEAD + redirect + "\nRedirect circle.dss" + TAIL))
    assert [p.rpartition("; ")[0].rpartition(": ")[2] for p in problems[:2]] == ["'sun.csv'", "'data/secret.csv'"]
    assert "missing file 'circle.dss'" in problems[2]
    loads = Circuit(read_feeder(write(folder, HEAD + "Redirect Loads.dss" + TAIL))).network.loads
    assert loads.names == ("a", "c")


def test_feeder_in_a_linked_folder_reads_what_lies_beside_the_original(tmp_path: Path) -> None:
    write(tmp_path / "store" / "codes", "New LineCode.lc nphases=3 R1=0.3 X1=0.4", "Codes.dss")
    write(tmp_path / "store" / "north", HEAD + "Redirect ../codes/Codes.dss\nEdit Line.l1 linecode=lc" + TAIL)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "grid").symlink_to(tmp_path / "store" / "north")
    circuit = Circuit(read_feeder(tmp_path / "here" / "grid" / "Master.dss"))
    assert circuit.solve()
    circuit.close()


def test_device_or_pipe_in_place_of_a_file_is_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dss")
    problems = problems_of(write(tmp_path, HEAD + "Redirect pipe.dss\nRedirect ." + TAIL))
    assert [": redirect of a missing file" in problem for problem in problems] == [True, True]


def test_all_problems_come_at_once_with_their_lines(tmp_path: Path) -> None:
    folder, secret = secret_outside(tmp_path)
    loads = write(folder, f"! loads\nRedirect {secret}\nNew Generator.g bus1=b use=x.so", "Loads.dss")
    master = write(folder, HEAD + f"Redirect Loads.dss\n{SHAPE} csvfile=nowhere.csv\nReduce" + TAIL)
    assert [problem.split(": ")[0] for problem in problems_of(master)] == [
        f"{loads}:2", f"{loads}:3", f"{master}:6", f"{master}:7",
    ]  # fmt: skip


def test_digest_follows_the_content_of_data_files_and_not_their_place(tmp_path: Path) -> None:
    def digest(folder: Path, sun: str, places: str = "b, 1, 2\n", trust: bool = False) -> str:
        write(folder, sun, "sun.csv")
        write(folder, places, "xy.csv")
        master = write(folder, HEAD + f"{SHAPE} mult=(file=sun.csv)" + TAIL + "BusCoords xy.csv\n")
        return read_feeder(master, trust=trust).digest

    first = digest(tmp_path / "a", "1\n2\n3\n")
    assert digest(tmp_path / "b", "1\n2\n3\n") == first
    assert digest(tmp_path / "a", "1\n2\n4\n") != first
    assert digest(tmp_path / "a", "1\n2\n3\n", "b, 1, 3\n") != first
    assert digest(tmp_path / "a", "1\n2\n3\n", trust=True) != first


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xef\xbb\xbf"])
def test_data_with_a_byte_order_mark_says_so(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "sun.csv").write_bytes(mark + b"1\n2\n3\n")
    assert "byte order mark" in problems_of(write(tmp_path, HEAD + f"{SHAPE} csvfile=sun.csv" + TAIL))[0]


# -- encodings and places


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_element_names_beyond_ascii_survive_every_encoding(tmp_path: Path, encoding: str) -> None:
    text = HEAD + "New Capacitor.Übung bus1=größe kV=12.47 kvar=50\nNew Line.l2 bus1=b bus2=größe length=1" + TAIL
    folder = tmp_path / "Netz Süd"
    folder.mkdir()
    (folder / "Größe.dss").write_bytes(text.encode(encoding))
    circuit = Circuit(read_feeder(folder / "Größe.dss"))
    assert "größe" in circuit.network.buses
    assert circuit.network.capacitors == ("übung",)
    before = circuit.v.copy()
    circuit.switchgear.write_steps(np.array([0]))
    assert circuit.solve()
    assert np.abs(circuit.v - before).max() > 1e-3
    circuit.close()


def test_coordinates_are_read_from_a_folder_with_spaces_and_beyond_ascii(tmp_path: Path) -> None:
    write(tmp_path / "Pläne 1", "\ufeffb, 3.5, 4.5\n", "Bus Coords.csv")
    master = write(tmp_path, HEAD + TAIL + 'BusCoords "Pläne 1\\Bus Coords.csv"\n')
    network = Circuit(read_feeder(master)).network
    assert network.bus_xy[network.buses.index("b")].tolist() == [3.5, 4.5]


def test_redirects_count_from_the_file_that_names_them_up_and_down(tmp_path: Path) -> None:
    write(tmp_path / "lib", "New LineCode.lc nphases=3 R1=0.3 X1=0.4", "Codes.dss")
    write(tmp_path / "north" / "deep", f"Redirect ..\\..\\lib\\Codes.dss\n{SHAPE} csvfile=sun.csv", "More.dss")
    write(tmp_path / "north" / "deep", "1\n2\n3\n", "sun.csv")
    master = write(tmp_path / "north", HEAD + "Redirect ./deep/More.dss\nEdit Load.a yearly=s" + TAIL)
    feeder = read_feeder(master)
    assert [str(f.relative_to(tmp_path)) for f in feeder.files] == [
        "north/Master.dss", "north/deep/More.dss", "lib/Codes.dss", "north/deep/sun.csv",
    ]  # fmt: skip
    assert points_of(Circuit(feeder).network, "s").tolist() == [1.0, 2.0, 3.0]


# -- trust


def test_trust_reads_outside_runs_and_writes_what_the_model_says(tmp_path: Path) -> None:
    folder, secret = secret_outside(tmp_path)
    lines = f"{SHAPE} mult=(file={secret})\nEdit Load.a yearly=s"
    run = "Solve mode=daily number=2\nExport Voltages\n"
    never = "Show Voltages\nQuit\nDOScmd touch ran\ncd ..\nSet editor=x maxiter=40\n"
    master = write(folder, HEAD + lines + TAIL + run + never)
    here = Path.cwd()
    feeder = read_feeder(master, trust=True)
    assert [command.text for command in feeder.left_out] == [
        "Clear", "Show Voltages", "Quit", "DOScmd touch ran", "Set editor=x",
    ]  # fmt: skip
    circuit = Circuit(feeder)
    assert circuit.solve()
    assert points_of(circuit.network, "s").tolist() == [1.0, 2.0, 3.0]
    assert sorted(p.name for p in folder.iterdir()) == ["Master.dss", "tiny_EXP_VOLTAGES.csv"]
    assert Path.cwd() == here
    again = pickle.loads(pickle.dumps(circuit))
    assert (again.feeder.trust, again.feeder.model_root) == (True, tmp_path / "grids")
    assert again.v.tobytes() == circuit.v.tobytes()
    circuit.close()
    again.close()


def test_trusted_model_that_solves_ends_where_the_untrusted_one_does(tmp_path: Path) -> None:
    master = write(tmp_path, HEAD + TAIL + "Solve\nSolve mode=daily number=24\nSet mode=snap\nSample\nSummary\n")
    plain, trusted = (
        Circuit(read_feeder(master), tolerance=1e-9),
        Circuit(read_feeder(master, trust=True), tolerance=1e-9),
    )
    assert plain.solve()
    assert trusted.solve()
    assert np.abs(plain.v - trusted.v).max() < 1e-6
    assert len(trusted.feeder.commands) == len(plain.feeder.commands) + 5


def test_trusted_model_may_make_another_circuit_and_load_a_library(tmp_path: Path) -> None:
    master = write(tmp_path, HEAD + "New Generator.g bus1=b kV=12.47 kW=1 usermodel=nowhere.so" + TAIL)
    with pytest.raises(FeederError, match=r"Master\.dss:5: .*OpenDSS error 570"):  # the engine looked for it
        Circuit(read_feeder(master, trust=True))
    removing = read_feeder(write(tmp_path, HEAD + TAIL + "MakePosSeq\n"), trust=True)
    circuit = Circuit(removing)
    assert circuit.network.nodes == ("sourcebus.1", "b.1")


def test_trust_does_not_forgive_a_missing_file(tmp_path: Path) -> None:
    master = write(tmp_path, HEAD + f"Redirect /nowhere/x.dss\n{SHAPE} csvfile=y.csv" + TAIL)
    assert ["a missing file" in problem for problem in problems_of(master, trust=True)] == [True, True]


def test_too_many_control_iterations_of_a_trusted_solve_are_no_error(tmp_path: Path) -> None:
    fight = (
        "New Capacitor.c bus1=b kV=12.47 kvar=3000\n"
        "New CapControl.cc capacitor=c element=Line.l1 terminal=1 type=kvar ptratio=1 ctratio=1\n"
        "~ onsetting=10 offsetting=-10 delay=0 delayoff=0 deadtime=0"
    )
    engine = Engine()
    for text in (HEAD + fight + TAIL + "Set maxcontroliter=2").splitlines():
        engine.command(text)
    with pytest.raises(EngineError, match="Max Control Iterations"):
        engine.command("Solve")
    feeder = read_feeder(write(tmp_path, HEAD + fight + TAIL + "Set maxcontroliter=2\nSolve\n"), trust=True)
    circuit = Circuit(feeder)
    assert circuit.solve()
    circuit.close()


def test_circuit_of_a_feeder_pickles_with_root_and_trust(tmp_path: Path) -> None:
    feeder = read_feeder(write(tmp_path / "grid", HEAD + TAIL), model_root=tmp_path / "grid")
    again: Feeder = pickle.loads(pickle.dumps(Circuit(feeder))).feeder
    assert again == feeder
    assert again.model_root == tmp_path / "grid"


def test_what_is_never_run_and_never_set_is_opendss_vocabulary() -> None:
    assert set(VERBS) >= NEVER_RUN
    assert set(OPTIONS) >= NEVER_SET


# -- how a line is cut


def test_line_is_cut_as_opendss_cuts_it() -> None:
    text = """New Line.l1, bus1 = "a b.1.2", phases=2 , (1 2 | 3 4) 'x=y' {z} r=[1,2] ! c=3"""
    assert [(p.name, p.value) for p in cut(text)] == [
        ("", "New"), ("", "Line.l1"), ("bus1", "a b.1.2"), ("phases", "2"), ("", "1 2 | 3 4"), ("", "x=y"), ("", "z"),
        ("r", "1,2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("class_name", "names"),
    [
        ("loadshape", ("csvfile", "sngfile", "dblfile", "pqcsvfile")),
        ("tshape", ("csvfile", "sngfile", "dblfile")),
        ("generator", ("usermodel", "shaftmodel")),
        ("pvsystem", ("usermodel",)),
        ("storage", ("usermodel", "dynadll")),
    ],
)
def test_abbreviation_of_a_dangerous_property_means_what_the_engine_takes_it_for(
    class_name: str, names: tuple[str, ...]
) -> None:
    n_reached = 0
    for written in {name[:length] for name in names for length in range(1, len(name) + 1)}:
        engine = Engine()
        for text in HEAD.splitlines():
            engine.command(text)
        engine.command(f"New {class_name}.x")
        with contextlib.suppress(EngineError):
            engine.command(f"Edit {class_name}.x {written}=/nowhere")
        handle = engine.handles(class_name)["x"]
        reached = [name for name in names if engine.get_text(handle, class_name, name) == "/nowhere"]
        (own,) = find_properties(class_name, cut(f"{written}=/nowhere"))
        found = find_danger(class_name, own.name, "/nowhere")
        assert bool(reached) == bool(found), f"{class_name} {written}: {reached} {found}"
        n_reached += len(reached)
    assert n_reached >= 4 * len(names)


def test_memory_mapping_is_taken_out_so_that_values_can_be_read(tmp_path: Path) -> None:
    write(tmp_path, "1\n2\n3\n", "sun.csv")
    lines = "New LoadShape.s npts=3 memorymap=Yes interval=1 mult=(file=sun.csv)\nEdit Load.a daily=s"
    feeder = read_feeder(write(tmp_path, HEAD + lines + TAIL))
    assert feeder.left_out[-1].text == "memorymapping=Yes"
    assert points_of(Circuit(feeder).network, "s").tolist() == [1.0, 2.0, 3.0]
