"""A feeder on disk: found, read command by command, and stripped of what does not describe a circuit."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from powergrid.errors import FeederError
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.feeder import Command, find_feeder, list_feeders, read_feeder
from powergrid.grid.feeder.reading import syntax as feeder_module

UPSTREAM = Path(__file__).parents[3].parent / "shared" / "upstream-feeders"

MASTER = """Clear
New Circuit.tiny basekv=12.47 pu=1.0 R1=0.01 X1=0.1
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4
New Load.a bus1=b kV=12.47 kW=200 kvar=100
Set VoltageBases=[12.47]
CalcVoltageBases
"""


def write(folder: Path, text: str, name: str = "Master.dss") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def texts(commands: tuple[Command, ...]) -> list[str]:
    return [command.text for command in commands]


def problems_of(master: Path) -> tuple[str, ...]:
    with pytest.raises(FeederError) as caught:
        read_feeder(master)
    return caught.value.problems


# -- finding


@pytest.mark.parametrize("name", list_feeders())
def test_shipped_feeder_by_name_reads_as_its_master(name: str) -> None:
    feeder = read_feeder(name)
    assert feeder.name == name
    assert feeder.master.name == "Master.dss"
    assert {command.file.parent for command in feeder.commands} == {feeder.master.parent}
    assert pickle.loads(pickle.dumps(feeder)) == feeder


def test_feeder_with_a_typing_error_names_the_nearest() -> None:
    with pytest.raises(FeederError, match=r"unknown feeder 'iee123' \(did you mean 'ieee123'"):
        find_feeder("iee123")


def test_master_with_a_typing_error_names_the_nearest_file(tmp_path: Path) -> None:
    write(tmp_path, MASTER)
    with pytest.raises(FeederError, match=r"unknown file 'Mastr.dss' \(did you mean 'Master.dss'"):
        find_feeder(tmp_path / "Mastr.dss")


def test_path_through_a_folder_that_is_not_there_names_the_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / "grids" / "north").mkdir(parents=True)
    with pytest.raises(FeederError, match=r"unknown folder 'nroth' \(did you mean 'north'\?\) in .*grids") as caught:
        read_feeder(tmp_path / "grids" / "nroth" / "deep" / "Master.dss")
    assert "ieee13" not in str(caught.value)


def test_folder_in_place_of_a_master_lists_the_files(tmp_path: Path) -> None:
    write(tmp_path, MASTER)
    with pytest.raises(FeederError, match=r"is a folder; name its master file, one of: Master\.dss"):
        find_feeder(tmp_path)


def test_path_from_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    master = write(tmp_path / "grid", MASTER)
    assert find_feeder("~/grid/Master.dss") == master


def test_home_folder_of_nobody_is_a_feeder_error() -> None:
    with pytest.raises(FeederError, match="home folder"):
        find_feeder("~nobody-of-that-name/Master.dss")


def test_link_to_a_master_finds_the_files_beside_the_original(tmp_path: Path) -> None:
    write(tmp_path / "grid", "New Load.c bus1=b kV=12.47 kW=5", "Loads.dss")
    master = write(tmp_path / "grid", MASTER + "Redirect Loads.dss\n")
    link = tmp_path / "elsewhere.dss"
    link.symlink_to(master)
    assert "New Load.c bus1=b kV=12.47 kW=5" in texts(read_feeder(link).commands)


# -- reading


def test_redirects_are_followed_in_place_with_their_own_lines(tmp_path: Path) -> None:
    write(tmp_path / "sub", "! loads\nNew Load.c bus1=b kV=12.47 kW=5\nRedirect more.dss", "Loads.dss")
    write(tmp_path / "sub", "New Load.d bus1=b kV=12.47 kW=6", "more.dss")
    master = write(tmp_path, MASTER.replace("Set Volt", "Redirect sub\\Loads.dss\nredir (sub/more.dss)\nSet Volt"))
    commands = read_feeder(master).commands
    loads = [c for c in commands if c.text.startswith("New Load")]
    assert [(c.file.name, c.line) for c in loads] == [
        ("Master.dss", 4),
        ("Loads.dss", 2),
        ("more.dss", 1),
        ("more.dss", 1),
    ]
    assert texts(commands)[-1] == "CalcVoltageBases"


@pytest.mark.parametrize("written", ["a b.dss", "größe.dss"])
@pytest.mark.parametrize("quotes", ['""', "''", "()", "[]", "{}"])
def test_redirect_in_quotes_takes_the_name_between_them(tmp_path: Path, written: str, quotes: str) -> None:
    write(tmp_path, "New Load.c bus1=b kV=12.47 kW=5", written)
    master = write(tmp_path, MASTER + f"Redirect {quotes[0]}{written}{quotes[1]} ! the loads\n")
    assert read_feeder(master).commands[-1].file.name == written


def test_comments_and_blocks_are_not_commands(tmp_path: Path) -> None:
    master = write(tmp_path, MASTER + "! no\n// no\n/* New Load.no\nNew Load.no2\n*/\n\n  New Load.yes bus1=b\n")
    assert [t for t in texts(read_feeder(master).commands) if "Load" in t][1:] == ["New Load.yes bus1=b"]


def test_continuation_belongs_to_the_element_above(tmp_path: Path) -> None:
    master = write(tmp_path, MASTER.replace("kW=200 kvar=100", "\n~ kW=200\nMore kvar=100\nm kV=12.47"))
    circuit = Circuit(read_feeder(master))
    assert (circuit.network.loads.kw[0], circuit.network.loads.kvar[0]) == (200.0, 100.0)


@pytest.mark.parametrize(
    "line",
    ["Solve", "sol mode=daily", "Show Voltages LN nodes", "Plot profile", "Export Voltages", "exp v", "Save Circuit",
     "DOScmd rm -rf /", "Quit", "Dump", "Visualize what=powers", "FileEdit x", "cd nowhere", "Distribute kW=3",
     "Rephase", "CvrtLoadShapes", "Sample", "BuildY", "? Load.a.kW", "Set Mode=Daily",
     "set editor=x Recorder=yes", "Set casename=z",
     "set tol=1 maxiter=3", "Uuids file=x", "'solve'", "\"Show\" Voltages"],
)  # fmt: skip
def test_command_that_describes_nothing_is_left_out_and_listed(tmp_path: Path, line: str) -> None:
    master = write(tmp_path, MASTER + "! one more\n" + line + "\n")
    feeder = read_feeder(master)
    assert texts(feeder.commands) == MASTER.splitlines()[1:]
    assert [(c.file, c.line, c.text) for c in feeder.left_out] == [(master, 1, "Clear"), (master, 8, line)]


def test_options_are_parted_into_those_of_the_circuit_and_the_others(tmp_path: Path) -> None:
    master = write(
        tmp_path, MASTER + "set mode=daily voltageb=(12.47, .48) datapath='x y' loadmult=0.5 ! tolerance=1\n"
    )
    feeder = read_feeder(master)
    assert feeder.commands[-1].text == "set voltagebases=(12.47, .48) loadmult=0.5"
    assert [each.text for each in feeder.left_out[1:]] == ["set datapath=x y", "set mode=daily"]


def test_last_value_of_each_option_is_kept_whether_it_is_run_or_not(tmp_path: Path) -> None:
    before = "Set year=9\nClear\n"  # of another circuit
    lines = (
        "set mode=daily num=(24) %g=2.5\nSet ControlMode=OFF LoadMod=a\nSolve mode=yearly hour = 7\nSet controlm=time\n"
    )
    master = write(tmp_path, before + MASTER + lines)
    for _ in range(2):  # read, and from what is kept
        assert read_feeder(master).settings == {
            "voltagebases": "12.47", "mode": "yearly", "number": "24", "%growth": "2.5", "loadmodel": "a",
            "hour": "7", "controlmode": "time",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("write_to", "shown"),
    [
        ("debugtrace=yes", "debugtrace=yes"),
        ("DebugTrace = True", "DebugTrace=True"),
        ("debug=(y)", "debugtrace=(y)"),
    ],
)
def test_property_that_writes_a_file_is_taken_out(tmp_path: Path, write_to: str, shown: str) -> None:
    master = write(tmp_path, MASTER + f"New Generator.g bus1=b kW=10 {write_to} kV=12.47\n")
    feeder = read_feeder(master)
    assert feeder.commands[-1].text.split() == ["New", "Generator.g", "bus1=b", "kW=10", "kV=12.47"]
    assert feeder.left_out[-1].text == shown


@pytest.mark.parametrize("act", ["action=dblsave", "Act=SngSave"])
def test_action_that_writes_a_file_is_taken_out(tmp_path: Path, act: str) -> None:
    feeder = read_feeder(write(tmp_path, MASTER + f"New LoadShape.s npts=2 mult=(1 2) {act}\n"))
    assert feeder.commands[-1].text == "New LoadShape.s npts=2 mult=(1 2)"
    assert feeder.left_out[-1].text.lower() == f"action={act.partition('=')[2]}".lower()


def test_action_of_a_switch_control_is_kept(tmp_path: Path) -> None:
    line = "New SwtControl.s SwitchedObj=Line.l1 SwitchedTerm=1 Action=Close debugtrace=no"
    assert read_feeder(write(tmp_path, MASTER + line)).commands[-1].text == line


@pytest.mark.parametrize(
    ("prop", "name", "owner"),
    [
        ("UserModel=x.so", "UserModel", "Generator"),
        ("usermod = /tmp/x.dll", "usermodel", "Generator"),
        ("DynaDLL=x", "DynaDLL", "Storage"),
        ("ShaftModel=x", "ShaftModel", "Generator"),
    ],
)
def test_property_that_loads_a_library_is_refused(tmp_path: Path, prop: str, name: str, owner: str) -> None:
    master = write(tmp_path, MASTER + f"New {owner}.g bus1=b {prop}\n")
    trusting = "whoever calls trusts it: --trust, or trust=True in Python"
    what = f"{name} loads a program library, which is not allowed; {trusting}"
    assert problems_of(master) == (f"{master}:7: {what}",)


@pytest.mark.parametrize("line", ["Reduce", "MakePosSeq", "Remove Line.l1", "Reconductor line1=l1"])
def test_command_that_makes_another_circuit_is_refused(tmp_path: Path, line: str) -> None:
    assert "makes another circuit" in problems_of(write(tmp_path, MASTER + line))[0]


def test_abbreviations_mean_what_opendss_takes_them_for(tmp_path: Path) -> None:
    direct = Engine().direct
    commands = [direct.Executive.Command(i + 1).lower() for i in range(direct.Executive.NumCommands())]
    options = [direct.Executive.Option(i + 1).lower() for i in range(direct.Executive.NumOptions())]
    assert commands == list(feeder_module.VERBS)
    assert options == list(feeder_module.OPTIONS)
    verbs = [
        Command(tmp_path, 1, text).verb
        for text in ("n Line.x", "ed Line.x", "cl Line.x", "calcv", "so", "red x", "e,x")
    ]
    assert verbs == ["new", "edit", "close", "calcvoltagebases", "solve", "redirect", "edit"]


def test_edit_by_abbreviation_reaches_the_circuit(tmp_path: Path) -> None:
    master = write(tmp_path, MASTER + "ed Load.a kW=150\nLoad.a.kvar=70\n")
    loads = Circuit(read_feeder(master)).network.loads
    assert (loads.kw[0], loads.kvar[0]) == (150.0, 70.0)


def test_clear_in_the_middle_leaves_the_circuit_before_it_out(tmp_path: Path) -> None:
    feeder = read_feeder(write(tmp_path, MASTER + MASTER.replace("tiny", "second")))
    assert sum("Circuit." in text for text in texts(feeder.commands)) == 1
    assert "second" in feeder.commands[0].text


def test_bus_coordinates_that_are_missing_are_named(tmp_path: Path) -> None:
    write(tmp_path, "b, 1, 2\n", "BusCoords.csv")
    master = write(tmp_path, MASTER + "BusCoords BusCoord.csv\n")
    assert problems_of(master) == (
        f"{master}:7: buscoords of a missing file 'BusCoord.csv' (did you mean 'BusCoords.csv'?)",
    )


def test_all_missing_files_are_reported_at_once_with_the_nearest_names(tmp_path: Path) -> None:
    write(tmp_path, "New Load.c bus1=b", "Loads.dss")
    master = write(tmp_path, MASTER + "Redirect LOADS.DSS\nRedirect Lodas.dss\nRedirect what\nCompile nowhere/x.dss\n")
    any_case = "Letter case matters here); write it as it is on the disk, or 'ignore_case: true' takes it"
    assert problems_of(master) == (
        f"{master}:7: redirect of a missing file 'LOADS.DSS' (did you mean 'Loads.dss'? {any_case}",
        f"{master}:8: redirect of a missing file 'Lodas.dss' (did you mean 'Loads.dss'?)",
        f"{master}:9: redirect of a missing file 'what'",
        f"{master}:10: compile of a missing file 'nowhere/x.dss'",
    )


def test_redirect_in_a_circle_is_named(tmp_path: Path) -> None:
    write(tmp_path, "Redirect ./Master.dss", "Loads.dss")
    master = write(tmp_path, MASTER + "Redirect Loads.dss\nRedirect Master.dss\n")
    assert [problem.rpartition(" redirects")[2] for problem in problems_of(master)] == [" in a circle"] * 2


def test_file_that_is_no_master_says_so(tmp_path: Path) -> None:
    assert "not a master file" in problems_of(write(tmp_path, "New Load.a bus1=b"))[0]


def test_digest_changes_with_any_file(tmp_path: Path) -> None:
    write(tmp_path, "New Load.c bus1=b kV=12.47 kW=5", "Loads.dss")
    master = write(tmp_path, MASTER + "Redirect Loads.dss\n")
    before = read_feeder(master).digest
    assert read_feeder(master).digest == before
    write(tmp_path, "New Load.c bus1=b kV=12.47 kW=6", "Loads.dss")
    assert read_feeder(master).digest != before


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the models as they circulate are not here")
def test_circulating_models_read_without_their_solves_and_plots() -> None:
    feeder = read_feeder(UPSTREAM / "8500-Node" / "Master.dss")
    assert {command.verb for command in feeder.left_out} <= {"clear", "solve", "set", "show", "plot", "export"}
    assert len(feeder.commands) > 5000


def test_lines_that_are_no_commands_are_refused_together_with_the_nearest(tmp_path: Path) -> None:
    lines = "Nwe Load.a bus1=sourcebus kw=1\n\nSovle\nredirct more.dss\nFoo bar\nClearAll2\n'New' Load.b bus1=sourcebus"
    master = tmp_path / "typed.dss"
    master.write_text(f"Claer is before the start\nClear\nNew Circuit.c basekv=4.16\n{lines}\nplot circuit\n")
    with pytest.raises(FeederError) as raised:
        read_feeder(master)
    assert list(raised.value.problems) == [
        f"{master}:4: 'Nwe Load.a bus1=sourcebus kw=1' is no command (did you mean 'new'?)",
        f"{master}:6: 'Sovle' is no command (did you mean 'solve'?)",
        f"{master}:7: 'redirct more.dss' is no command (did you mean 'redirect'?)",
        f"{master}:8: 'Foo bar' is no command",
        f"{master}:9: 'ClearAll2' is no command (did you mean 'clearall'?)",
    ]
    with pytest.raises(FeederError, match="'Sovle'"):
        read_feeder(master, trust=True)


# -- problems as data


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("Redirect nowhere.dss", "missing-file"),
        ("Redirect LOADS.dss", "file-case"),
        ("New LoadShape.s npts=2 mult=(file=nowhere.csv)", "missing-data-file"),
        ("Redirect ../../../etc/hostname", "outside-root"),
        ("Redirect Master.dss", "redirect-circle"),
        ("Reduce", "rewriting-command"),
        ("New Generator.g bus1=b usermodel=evil.so", "program-library"),
        ("Nwe Load.a bus1=b", "unknown-command"),
    ],
)
def test_each_problem_of_the_files_has_the_code_of_its_kind_and_its_place(
    tmp_path: Path, lines: str, code: str
) -> None:
    write(tmp_path, "New Load.a bus1=b kV=12.47 kW=5\n", "loads.dss")
    master = write(tmp_path, f"New Circuit.c\n{lines}\n")
    with pytest.raises(FeederError) as caught:
        read_feeder(master)
    (problem,) = caught.value.details
    assert (problem.code, problem.where) == (code, f"{master}:2")
    assert str(problem) == caught.value.problems[0]


def test_command_that_the_engine_refuses_has_a_code(tmp_path: Path) -> None:
    master = write(tmp_path, "New Circuit.c\nNew Load.a bus1=b kW=5 colour=red\n")
    with pytest.raises(FeederError) as caught:
        Circuit(read_feeder(master))
    assert (caught.value.where, [p.code for p in caught.value.details]) == (f"{master}:2", ["unknown-property"])
