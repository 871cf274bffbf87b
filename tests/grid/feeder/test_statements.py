"""What a line means, and what the engine is handed of it."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from powergrid.errors import FeederError
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.engine import Engine
from powergrid.grid.feeder.compile import compile_feeder
from powergrid.grid.feeder.feeder import Feeder, read_feeder
from powergrid.grid.feeder.reading.files import default_root
from powergrid.grid.feeder.reading.statements import cut, find_empty_part, match_plain_new, write

HEAD = """Clear
New Circuit.tiny basekv=12.47 pu=1.0 R1=0.01 X1=0.1
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4
New Load.a bus1=b kV=12.47 kW=200 kvar=100
New Load.b2 bus1=b kV=12.47 kW=300 kvar=100
"""
TAIL = "\nSet VoltageBases=[12.47]\nCalcVoltageBases\n"


def read(folder: Path, lines: str, **how: bool) -> Feeder:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Master.dss").write_bytes((HEAD + lines + TAIL).encode())
    return read_feeder(folder / "Master.dss", **how)


def handed(folder: Path, lines: str) -> list[str]:
    """Return what the engine is handed of lines behind the head."""
    return [command.text for command in read(folder, lines).commands][4:-2]


def problem_of(folder: Path, lines: str) -> tuple[str, str]:
    with pytest.raises(FeederError) as caught:
        read(folder, lines)
    (problem,) = caught.value.details
    assert problem.where == f"{folder / 'Master.dss'}:{6 + lines.count(chr(10))}"
    return problem.code, problem.text


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        ("Edit Load.a kW=5", ["Edit Load.a kW=5"]),
        ("ed\tLoad.a,KW = 5 ,KVAR=3 // x=1", ["Edit Load.a KW=5 KVAR=3"]),
        ("Edit Load.a daily=s yearl=t 3", ["Edit Load.a daily=s yearly=t daily=3"]),
        ("New Load.c phases=1 b 0.4 (1 2 +)", ["New Load.c phases=1 bus1=b kv=0.4 kw=(1 2 +)"]),
        ("Edit Load.a\n~ kW=7\nmore (kvar)='3'", ["Edit Load.a", "Edit load.a kW=7", "Edit load.a kvar='3'"]),
        ("Load.a.kW=7 kvar=3\nkW=8", ["Edit load.a kW=7 kvar=3", "Edit load.a kW=8"]),
        ("Select Load.a\n~ kW=7", ["Edit load.a kW=7"]),
        ("Set class=Load element=a\n~ kW=7", ["Edit load.a kW=7"]),
        ("Set object=Load.b2\n~ kW=7", ["Edit load.b2 kW=7"]),
        ("Disable Load.a\nOpen object=Load.b2 term=1 0", ["Edit load.a enabled=no", "Open load.b2 1 0"]),
        ("BatchEdit Load.^B[0-9] kW=4", ["Edit load.b2 kW=4"]),
        ("BatchEdit Load..* kW=4", ["BatchEdit load..* kW=4"]),
        ("Enable Load.*", ["Edit load.a enabled=yes", "Edit load.b2 enabled=yes"]),
        ("Var @p=(1 2 +) @n=a\nEdit Load.@n kW=@p", ["Edit Load.a kW=(1 2 +)"]),
        ("Var @b=b\nEdit Load.a bus1=@b.1.2.3", ["Edit Load.a bus1=b.1.2.3"]),
        ("Var @k=5\nEdit Load.a kW=(@k 2 *)", ["Edit Load.a kW=(5 2 *)"]),
        ("Edit Load.a daily=@east", ['Edit Load.a daily="@east"']),
        ('New "Load.the shop (2)" bus1=b', ['New "Load.the shop (2)" bus1=b']),
        ("Set loadmu=0.5", ["Set loadmult=0.5"]),
        ("Set class=line\nSelect Load.a 1", []),
        ("Edit Circuit.tiny pu=1.1", []),
        ("Edit Load.a kW=5,", ["Edit Load.a kW=5"]),
        ("Edit Load.a kW=5 daily=''", ["Edit Load.a kW=5"]),
    ],
)
def test_line_is_handed_on_under_full_names_and_only_so(tmp_path: Path, lines: str, texts: list[str]) -> None:
    assert handed(tmp_path, lines) == texts


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("Edit Load.a kW=5=7", "second '='"),
        ("Edit Load.a kW=(5)=7", "second '='"),
        ("Edit Load.a kW= =7", "no value behind its '='"),
        ("Edit Load.a kW=", "no value behind its '='"),
        ("Edit Load.a bus1=(b) , kW=3", "a parameter is empty"),
        ("Edit Load.a bus1=b,, kW=3", "a parameter is empty"),
        ("Edit Load.a daily='' kW=3", "'daily' is empty"),
        ("Edit Load.a kW=(3", "never closed"),
        ("Load.a.kW=''", "nothing behind its '='"),
        ("Edit Load.a kW=3\x0bkvar=2", "U+000B"),
        ("Edit Load.a kW=3\u00a0kvar=2", "U+00A0"),
        ("Edit Load.a\u200b kW=3", "U+200B"),
        ("Set class=line\n~ length=3", "which element it edits is not certain"),
        ("Edit Load.nope kW=3\n~ kW=4", "which element it edits is not certain"),
        ("BatchEdit Load..* kW=1\n~ kW=4", "which element it edits is not certain"),
        ("Show Voltages\n~ kW=4", "which element it edits is not certain"),
        ("New Load bus1=b", "is no Class.name"),
        ("Edit Load.@result kW=1", "last file or result"),
        ("BatchEdit Load.* kW=1", "no regular expression"),
        ("BatchEdit Load.(?<a>x) kW=1", "no regular expression"),
        ("Edit Load.a kW=@lastfile", "last file or result"),
        ("New LoadShape.s npts=2 mult=(1,,2)", "a part of the list"),
        ("New LoadShape.s npts=2 mult=(1 a=2)", "has an '=' in quotes"),
        ("New LoadShape.s npts=2 mult=(file=x.csv size=2)", "more of a file than its column and header"),
        ("New Fuse.f MonitoredObj=Line.l1 action=maybe", "neither open nor close"),
        ("Load.a.kW='\"5'", "holds a quote"),
    ],
)
def test_line_that_can_be_read_in_two_ways_is_refused_with_its_place(tmp_path: Path, lines: str, words: str) -> None:
    code, text = problem_of(tmp_path, lines)
    assert code == "unclear"
    assert words in text


def test_assignment_to_what_is_not_defined_names_the_nearest(tmp_path: Path) -> None:
    assert problem_of(tmp_path, "Load.aa.kW=3") == (
        "unknown-name", "'Load.aa.kW=3' edits what is not defined (did you mean 'a'?)",
    )  # fmt: skip


def test_element_that_another_is_made_like_is_the_active_one_as_in_opendss_and_told(tmp_path: Path) -> None:
    lines = "New Load.c like=a\n~ kW=77"
    feeder = read(tmp_path, lines)
    loads = Circuit(feeder).network.loads
    engine = Circuit(read(tmp_path / "head", "")).engine
    for line in lines.splitlines():
        engine.command(line)
    own = {name: float(engine.command(f"? load.{name}.kW")) for name in ("a", "b2", "c")}
    assert dict(zip(loads.names, loads.kw, strict=True)) == own == {"a": 77.0, "b2": 300.0, "c": 200.0}
    assert [(note.code, note.text) for note in feeder.notes] == [
        ("mapped", "'~ kW=77' edits load.a: like= made it the active element")
    ]
    assert read(tmp_path, "New Load.c like=a\nEdit Load.c kW=7\n~ kW=77").notes == ()


def test_second_element_of_a_name_is_edited_where_it_is_the_active_one(tmp_path: Path) -> None:
    feeder = read(tmp_path, "Set AllowDuplicates=yes\nNew Load.a bus1=b kV=12.47 kW=7\n~ kvar=5")
    assert [command.text for command in feeder.commands][-3] == "~ kvar=5"
    loads = Circuit(feeder).network.loads
    assert sorted(zip(loads.kw, loads.kvar, strict=True)) == [(7.0, 5.0), (200.0, 100.0), (300.0, 100.0)]


_PIECES = st.sampled_from(
    [
        "New Load.a",
        "new Line.b-1",
        "bus1",
        "kW",
        "like",
        " ",
        "  ",
        "=",
        "[",
        "]",
        "(",
        ")",
        ",",
        "|",
        "b.1.2",
        "3",
        "-.5e3",
    ]
)


@given(st.lists(_PIECES, min_size=2, max_size=14).map("".join))
@example("New Load.a bus1=b kW=[3 4]")
@example("New Load.a bus1=[b , c] kW=( 3)")
@example("New Load.a bus1=[b ,, c]")
@example("New Load.a bus1=[, c]")
@example("New Load.a bus1=[ ] kW=3")
@example("New Load.a kW=3 ")
def test_line_that_is_handed_on_as_written_would_be_written_so(line: str) -> None:
    plain = match_plain_new(line)
    if plain is not None:
        class_name, name, names = plain
        target, *properties = cut(line)[1:]
        assert write(line[:3], target, *properties) == line
        assert (class_name, name) == (target.value.partition(".")[0].lower(), target.value.partition(".")[2])
        assert names == tuple(each.name.lower() for each in properties)
        for each in properties:
            find_empty_part(each.value)


@pytest.mark.parametrize(
    ("lines", "differ"),
    [
        ("New Load.c bus1=b", True),
        ("New LineCode.x r1=1\nNew LineCode.x r1=2", True),  # no elements: OpenDSS edits the first
        ("New Load.A bus1=b", False),
        ("New Vsource.source bus1=b", False),
        ("New Load.caf\u00e9 bus1=b", False),
        ("New 'Load.c ' bus1=b", False),
        ("Set AllowDuplicates=no\nNew Load.c bus1=b", False),
        ("Clear\n" + HEAD.removeprefix("Clear\n"), True),
    ],
)
def test_names_that_differ_for_certain_are_known(tmp_path: Path, lines: str, differ: bool) -> None:
    feeder = read(tmp_path, lines)
    assert feeder.names_differ is differ
    assert read_feeder(feeder.master).names_differ is differ  # from what is kept


@pytest.mark.parametrize("name", ["ieee13", "ieee34", "ieee123"])
def test_names_that_differ_are_not_looked_up_and_all_else_is_as_if(name: str) -> None:
    feeder, engine = read_feeder(name), Engine()
    assert feeder.names_differ
    found = []
    for each in (feeder, replace(feeder, names_differ=False)):
        compile_feeder(each, engine)
        assert engine.command("get allowduplicates") == "No"
        engine.solve(controls=True)
        data = engine.to_json()
        data["PreCommands"] = data["PreCommands"][1:]  # the first is the time of day
        found.append((data, engine.voltages(len(engine.node_names())).tobytes()))
    assert found[0] == found[1]
    engine.close()


def test_name_that_comes_twice_is_refused_where_it_does(tmp_path: Path) -> None:
    feeder = read(tmp_path, "New Load.B2 bus1=b kW=7")
    with pytest.raises(FeederError, match=r"Master.dss:6") as caught:
        Circuit(feeder)
    assert [problem.code for problem in caught.value.details] == ["duplicate-name"]


def test_action_of_a_fuse_is_its_state_with_a_note(tmp_path: Path) -> None:
    feeder = read(tmp_path, "New Fuse.f MonitoredObj=Line.l1 RatedCurrent=40 action=open")
    assert [note.code for note in feeder.notes] == ["mapped"]
    assert feeder.notes == read_feeder(feeder.master).notes  # from what is kept
    engine = Circuit(feeder).engine
    assert engine.command("? fuse.f.state").startswith("[open, open, open")


@pytest.mark.parametrize("pattern", ["^a", "b", "[ab]2?$", "B\\d", ".", "(a|b)", "x"])
def test_pattern_of_a_batch_edit_means_what_it_means_to_the_engine(tmp_path: Path, pattern: str) -> None:
    circuit = Circuit(read(tmp_path, f"BatchEdit Load.{pattern} kvar=1"))
    understood = circuit.network.loads.kvar.tolist()
    engine = Circuit(read(tmp_path, "")).engine
    engine.command(f"BatchEdit Load.{pattern} kvar=1")
    assert [float(engine.command(f"? load.{name}.kvar")) for name in ("a", "b2")] == understood


# -- folders


@pytest.mark.parametrize(
    "lines",
    ["Compile net/lines.dss\nRedirect loads.dss", "cd net\nRedirect lines\nRedirect loads.dss",
     "Set Datapath=net\nRedirect lines.dss\nRedirect loads.dss", "Redirect way.dss\nRedirect net/loads.dss"],
)  # fmt: skip
def test_names_count_from_where_the_feeder_moved_to(tmp_path: Path, lines: str) -> None:
    for folder, kw in (("net", 1200), (".", 300)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "loads.dss").write_text(f"New Load.x bus1=c kV=12.47 kW={kw}")
    (tmp_path / "net" / "lines.dss").write_text("New Line.l2 bus1=b bus2=c length=1")
    (tmp_path / "way.dss").write_text("cd net\nRedirect lines.dss")  # a redirect comes back
    loads = Circuit(read(tmp_path, lines)).network.loads
    assert dict(zip(loads.names, loads.kw, strict=True))["x"] == 1200.0


def test_folder_that_is_not_there_is_told_with_the_file_that_is_missed(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "lines.dss").write_text("New Line.l2 bus1=b bus2=c length=1")
    code, text = problem_of(tmp_path, "cd nett\nRedirect lines.dss")
    assert code == "missing-file"
    assert f"({tmp_path / 'Master.dss'}:6: 'cd nett' names no folder that is here)" in text


def test_folder_that_appears_later_is_seen(tmp_path: Path) -> None:
    (tmp_path / "loads.dss").write_text("New Load.x bus1=b kV=12.47 kW=300")
    before = read(tmp_path, "Set Datapath=net\nRedirect loads.dss")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "loads.dss").write_text("New Load.x bus1=b kV=12.47 kW=1200")
    assert read_feeder(before.master).files[1] == tmp_path / "net" / "loads.dss"


def test_letter_case_is_ignored_where_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "Net").mkdir()
    (tmp_path / "Net" / "Lines.dss").write_text("New LoadShape.s npts=2 mult=(file=SHAPE.CSV)")
    (tmp_path / "Net" / "shape.csv").write_text("1\n2\n")
    with pytest.raises(FeederError, match=r"Letter case matters here\); .*'ignore_case: true' takes it"):
        read(tmp_path, "Redirect net\\LINES.DSS")
    feeder = read(tmp_path, "Redirect net\\LINES.DSS", ignore_case=True)
    assert [file.name for file in feeder.files] == ["Master.dss", "Lines.dss", "shape.csv"]
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "LINES.DSS").write_text("New Load.x bus1=b kV=12.47")  # as written
    assert read_feeder(feeder.master, ignore_case=True).files[1].name == "LINES.DSS"


def test_default_root_is_no_place_where_files_of_others_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "me"
    monkeypatch.setenv("HOME", str(home))
    for place, root in (
        ("grids/north", "grids"),
        ("me/north", "me/north"),
        ("me", "me/Master.dss"),
        ("me/Downloads", "me/Downloads/Master.dss"),
        ("me/Downloads/north", "me/Downloads/north"),
        ("me/grids/north", "me/grids"),
    ):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        assert default_root(tmp_path / place / "Master.dss") == tmp_path / root
    assert default_root(Path("/Master.dss")) == Path("/Master.dss")
    temporary = Path(tempfile.gettempdir()).resolve()
    assert default_root(temporary / "Master.dss") == temporary / "Master.dss"
    assert default_root(Path("/home/you/Master.dss")) == Path("/home/you/Master.dss")


def test_master_that_lies_among_files_of_others_reads_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "Downloads").mkdir()
    (tmp_path / "Downloads" / "theirs.dss").write_text("New Load.x bus1=b")
    with pytest.raises(
        FeederError, match="put the model into a folder of its own, or whoever calls trusts it: --trust"
    ):
        read(tmp_path / "Downloads", "Redirect theirs.dss")
    feeder = read(tmp_path / "Downloads", "")
    assert feeder.model_root == tmp_path / "Downloads" / "Master.dss"
    assert read_feeder(feeder.master, model_root=feeder.model_root) == feeder


def test_file_beside_data_with_a_gap_is_refused_and_its_column_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1,5\n2,6\n")
    shape = "New LoadShape.s npts=2 interval=1 mult=(file=t.csv ,col=2)"
    engine = Circuit(read(tmp_path, shape)).engine
    assert engine.command("? loadshape.s.mult").split() == ["[", "5", "6]"]
    assert problem_of(tmp_path, shape.replace("t.csv", '"t.csv"'))[0] == "unclear"  # OpenDSS would take column 1


def test_large_feeder_is_read_in_proportion_to_its_lines(tmp_path: Path) -> None:
    def count_calls(lines: int) -> int:
        text = "".join(
            f"New Load.n{k} phases=1 bus1=b.1 kV=7.2 kW={k} kvar=1 daily=default\n~ pf=.9\n" for k in range(lines)
        )
        calls = 0

        def count(_frame: FrameType, event: str, _of: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            read(tmp_path / str(lines), text)
        finally:
            sys.setprofile(before)
        return calls

    read(tmp_path, "New Load.n phases=1 bus1=b.1 kV=7.2\n")  # what is compiled once is not counted
    once, four_times = count_calls(1_000), count_calls(4_000)
    assert 3.0 * once < four_times < 4.2 * once


@pytest.mark.skipif(os.name == "nt", reason="a drive is one there")
@pytest.mark.parametrize("start", ["C:\\Users\\you\\", "\\\\server\\share\\", "d:/models/"])
def test_name_with_a_drive_or_server_names_what_of_it_lies_here(tmp_path: Path, start: str) -> None:
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "sub dir" / "Loads.dss").write_text("New Load.x bus1=b")
    code, text = problem_of(tmp_path, f'Redirect "{start}sub dir\\Loads.dss"')
    assert code == "missing-file"
    assert text.endswith("(did you mean 'sub dir/Loads.dss'?)")


@pytest.mark.parametrize("line", ["New InvControl.x monbuse=3", "New Sensor.x kWs=[1 2 3]"])
def test_an_element_of_which_only_what_comes_late_is_said_is_made(tmp_path: Path, line: str) -> None:
    made, *late = [command.text for command in read(tmp_path, HEAD + line + TAIL).commands if ".x" in command.text]
    assert made.lower() == line.lower().partition(" ")[0] + " " + line.lower().split()[1]
    assert len(late) == 1
    assert late[0].startswith("Edit ")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("New Load.c phases=4294967299 bus1=b kV=12.47 kW=1", "and 3 to it"),  # 2**32 + 3
        ("New Load.c phases=4.294967299e9 bus1=b kV=12.47 kW=1", "and 3 to it"),
        ("New Load.c phases=(4294967296 3 +) bus1=b kV=12.47 kW=1", "and 3 to it"),
        ("New Load.c phases=(65536 65536 * 3 +) bus1=b kV=12.47 kW=1", "and 3 to it"),
        ("New Load.c phases=$100000003 bus1=b kV=12.47 kW=1", "and 3 to it"),
        ("New Load.c phases=-4294967293 bus1=b kV=12.47 kW=1", "and 3 to it"),
        ("Edit Load.a model=9007199254740993", "and 1 to it"),
        ("Edit Load.a phases=2147483647.5", "and -2147483648 to it"),
        ("Edit Load.a phases=1e400", "no number to reckon with"),
        ("Edit Load.a phases=nan", "no number to reckon with"),
        ("New LoadShape.s npts=-3 interval=1 mult=(1 2 3)", "less than none"),
        ("New LineCode.c nphases=-3", "less than none"),
        ("New Spectrum.s numharm=-1", "less than none"),
        ("New Capacitor.c bus1=b kv=12.47 numsteps=2 states=(1 4294967296)", "and 0 to it"),
        ("New Load.c bus1=b kV=12.47 kW=1e400", "no number to reckon with"),
        ("New Load.c bus1=b kV=12.47 kW=-inf", "no number to reckon with"),
        ("New Load.c bus1=b kV=12.47 kW=NaN", "no number to reckon with"),
        ("New Line.c bus1=b bus2=c length=1e308 units=mi", "no number to reckon with"),
        ("New Load.c bus1=b kV=12.47 kW=(1e300 1e300 *)", "no number to reckon with"),
        ("New LoadShape.s npts=2 interval=1 mult=(1 inf)", "no number to reckon with"),
        ("New LineCode.c nphases=2 rmatrix=(1 | nan 1)", "no number to reckon with"),
        ("New Load.c bus1=b.65537 phases=1 kV=7.2 kW=1", "no node 65537"),  # 1 in sixteen bits
        ("New Load.c bus1=b.1.2.3.4294967296 kV=12.47 kW=1", "no node 4294967296"),
        ("New Transformer.t buses=(b c.65537.2.3)", "no node 65537"),
        ("Open Line.l1 4294967297", "and 1 to it"),
    ],
)
def test_number_that_opendss_takes_for_another_is_refused_with_its_place(
    tmp_path: Path, lines: str, words: str
) -> None:
    code, text = problem_of(tmp_path, lines)
    assert code == ("not-finite" if "reckon" in words else "bad-value")
    assert words in text


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        ("New Load.c phases=2.7 bus1=b kV=12.47 kW=1", "phases=2.7 is 3 to OpenDSS, a whole number"),
        ("New LoadShape.s npts=2.5 interval=1 mult=(1 2 3)", "npts=2.5 is 2 to OpenDSS, a whole number"),
        ("New Load.c phases=3.0 bus1=b kV=12.47 kW=1e3", ""),
        ("New Load.c1234567890 phases=3 bus1=inf.1.2.3.32767 kV=12.47 kW=.1234567890123", ""),
        ("New Line.nan bus1=b bus2=b0e12 length=1e-3 normamps=1e99 phases=3", ""),
        ("New LoadShape.s npts=1e1 interval=1 mult=(file=one.csv)", ""),
    ],
)
def test_number_that_is_none_but_looks_like_one_stays_and_what_is_rounded_is_told(
    tmp_path: Path, lines: str, note: str
) -> None:
    (tmp_path / "one.csv").write_text("1\n" * 10)
    feeder = read(tmp_path, lines)
    assert [problem.text for problem in feeder.notes] == ([note] if note else [])
