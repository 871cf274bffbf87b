"""A check says everything that is wrong with a feeder, and survives what the engine does not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from powergrid.check import CHECKS, FeederReport, Finding, check_feeder
from powergrid.check.inspection import inspect_feeder
from powergrid.check.report import report_lines, verdict
from powergrid.cli import main
from powergrid.errors import FeederError
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.feeder import list_feeders, read_feeder
from tests.check.broken_feeders import AROUND, BROKEN, DEADLY, Broken

UPSTREAM = Path(__file__).parents[2].parent / "shared" / "upstream-feeders"
MASTERS = {
    "13Bus/IEEE13Nodeckt.dss": (16, 41),
    "34Bus/ieee34Mod1.dss": (37, 95),
    "37Bus/ieee37.dss": (39, 117),
    "123Bus/IEEE123Master.dss": (132, 278),
    "4Bus-YY-Bal/4Bus-YY-Bal.DSS": (4, 12),
    "ckt5/Master_ckt5.dss": (2998, 3437),
    "8500-Node/Master.dss": (4876, 8531),
    "8500-Node/Master-unbal.dss": (4876, 8531),
}


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a home and a working folder of its own below it."""
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of all that is below a folder."""
    return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in [folder, *folder.rglob("*")]}


def found(report: FeederReport, case: Broken, master: Path) -> Finding:
    findings = report.of_code(case.code)
    assert findings, (case.code, report.findings)
    file, line = case.place
    matching = [
        f for f in findings if (Path(f.file), f.line) == (master.parent / file, line) and case.words in f.message
    ]
    assert matching, findings
    return matching[0]


@pytest.mark.parametrize("name", BROKEN)
def test_broken_feeder_gets_its_finding_and_nothing_is_written(watched: Path, name: str) -> None:
    case = BROKEN[name]
    master = case.write(watched / "grids" / name)
    before = state(watched)
    report = inspect_feeder(master)
    finding = found(report, case, master)
    assert finding.remedy
    assert (finding.severity == "error") <= bool(report.exit_code())
    if case.refused:
        assert report.exit_code() == 1
        with pytest.raises(FeederError, match=re.escape(case.refused)):
            Circuit(read_feeder(master))
    else:
        Circuit(read_feeder(master)).close()
    assert state(watched) == before


def test_every_kind_of_severity_is_known_and_every_remedy_said() -> None:
    for code, check in CHECKS.items():
        assert check.severity in ("error", "warning", "note"), code
        assert check.title
        assert check.remedy


def test_what_is_wrong_is_told_all_at_once(watched: Path) -> None:
    lines = """Redirect LOADS.DSS
New Load.p bus1=b kV=4.16 kW=1 ! not the voltage there
New Load.p bus1=b kV=12.47 kW=1
New Load.q bus1=b colour=red
~ kW=3
New Line.z bus1=b bus2=c linecode=zzz
Nwe Load.r bus1=b
Edit Load.nobody kW=3
Solve"""
    master = Broken(lines, "", "", files={"Loads.dss": "! none"}).write(watched / "grids" / "all")
    report = inspect_feeder(master)
    assert sorted((f.line, f.code) for f in report.findings if f.severity != "note") == [
        (4, "file-case"),
        (5, "base-kv"),
        (6, "duplicate-name"),
        (7, "unknown-property"),
        (9, "unknown-name"),
        (10, "unknown-command"),
        (11, "unknown-name"),
    ]
    with pytest.raises(FeederError) as raised:
        report.raise_errors()
    assert len(raised.value.problems) == len(report.errors) == 6
    assert f"{master}:7: " in str(raised.value)


# -- in a process of its own


@pytest.mark.parametrize("name", DEADLY)
def test_engine_that_dies_or_does_not_end_is_a_report_with_its_last_line(watched: Path, name: str) -> None:
    text, code, line, words = DEADLY[name]
    master = Broken(f"{text}\nExport Voltages", code, words).write(watched / "grids" / name)
    line += line > 4
    before = state(watched)
    report = check_feeder(master, timeout_s=8 if code == "timed-out" else 60)
    assert report.exit_code() == 3
    assert report.outcome == ("timed out" if code == "timed-out" else "crashed")
    (finding,) = report.errors
    # Named is the element, also where OpenDSS dies of it later.
    assert (finding.code, finding.file, finding.line) == (code, str(master), 4)
    assert words in finding.message
    assert report.last_command.startswith(f"{master}:{line}: ")
    assert [f.line for f in report.of_code("left-out")] == [5]  # what was found before is there
    assert state(watched) == before


def test_check_in_a_process_finds_what_it_finds_here(watched: Path) -> None:
    for name in ("no_convergence", "duplicate_load_allowed", "island", "redirect_in_another_case", "nan"):
        master = BROKEN[name].write(watched / "grids" / name)
        before = state(watched)
        report = check_feeder(master)
        here, there = inspect_feeder(master).as_dict(), report.as_dict()
        assert state(watched) == before
        assert there.pop("seconds") > here.pop("seconds") == 0.0
        assert there["last_command"] == ""
        assert there.pop("confinement")["holds"]
        assert not here.pop("confinement")  # nothing shuts this process in
        assert there | {"last_command": here["last_command"]} == here
        found(report, BROKEN[name], master)


def test_file_outside_the_root_is_read_where_root_or_trust_allow_it(watched: Path) -> None:
    master = BROKEN["redirect_out_of_the_root"].write(watched / "grids" / "x")
    assert [f.code for f in inspect_feeder(master).errors] == ["outside-root"]
    assert [f.code for f in check_feeder(master, model_root=watched / "home").errors] == ["outside-root"]
    for report in (check_feeder(master, model_root=watched), inspect_feeder(master, trust=True)):
        assert not report.errors
        assert report.elements["Load"] == 2


def test_check_of_nothing_says_what_there_is(watched: Path) -> None:
    report = check_feeder("iee13")
    assert [(f.code, "did you mean 'ieee13'" in f.message) for f in report.findings] == [("no-feeder", True)]
    assert report.exit_code() == 1


@pytest.mark.parametrize("name", list_feeders())
def test_shipped_feeder_is_usable(name: str) -> None:
    report = inspect_feeder(name)
    assert (report.name, report.errors, report.outcome) == (name, [], "complete")
    assert report.snapshot is not None
    assert report.snapshot.source_kw == pytest.approx(report.snapshot.demand_kw + report.snapshot.losses_kw, rel=0.05)
    assert not report.islands
    assert not [f for f in report.findings if f.code in ("base-kv", "not-fed", "unknown-command", "duplicate-name")]
    assert sum(n for _, n in report.voltage_levels) == report.n_buses


def test_agents_that_would_be_formed_are_told_for_every_layout() -> None:
    report = inspect_feeder("ieee13")
    assert set(report.agents["per_device"]) == {"reg1", "reg2", "reg3", "cap1", "cap2"}
    for layout, agents in report.agents.items():
        devices = sorted(device for own in agents.values() for device in own)
        assert devices == ["cap1", "cap2", "reg1", "reg2", "reg3"], layout
    shown = [line for _, line in report_lines(report)]
    assert "  agents per_device: 5 with one device each" in shown
    assert any("671692" in f.message and "discover.switches" in f.message for f in report.of_code("not-discovered"))


# -- what is tried where it does not converge


def test_remedies_of_a_feeder_that_does_not_converge_say_which_helps(watched: Path) -> None:
    report = inspect_feeder(BROKEN["no_convergence"].write(watched / "grids" / "x"))
    tried = dict(report.remedies)
    assert {"1000 iterations", "controls held", "Newton's method"} <= set(tried)
    assert tried["1000 iterations"] == "does not converge"
    assert tried["loads as constant impedance"].startswith("converges, lowest voltage 0.")
    multipliers = [what for what in tried if what.startswith("LoadMult")]
    assert multipliers  # the largest that helps
    assert tried[multipliers[-1]].startswith("converges")
    (finding,) = report.of_code("no-convergence")
    assert "loads as constant impedance" in finding.remedy
    assert multipliers[-1] in finding.remedy
    multiplier = float(multipliers[-1].split()[1])
    sound = AROUND.format(BROKEN["no_convergence"].text) + f"Set LoadMult={multiplier}\n"
    again = inspect_feeder(Broken(sound, "", "", whole=True).write(watched / "grids" / "y"))
    assert not again.errors


# -- for people and for scripts


def test_page_about_the_check_lists_every_kind_of_finding() -> None:
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [(code, check.severity, check.title) for code, check in CHECKS.items()]


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        main(["check", *arguments])
    return int(raised.value.code or 0)


def test_command_shows_findings_in_groups_within_a_hundred_columns(
    watched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "\n".join(f"New Load.z{i} bus1=b kV=4 kW=1" for i in range(20))
    master = Broken(f"{lines}\n{'Nwe Load.q ' * 30}", "", "").write(watched / "grids" / "many")
    assert run_cli(str(master)) == 1
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 100
    assert "Errors (1)" in shown
    assert "  kV that does not fit the bus [base-kv] (20)" in shown
    assert "    ... and 15 more" in shown
    assert shown[-1].startswith("Not usable as it is: 1 error, 20 warnings")


def test_command_prints_pure_json_and_sets_the_exit_status(watched: Path, capfd: pytest.CaptureFixture[str]) -> None:
    master = BROKEN["line_without_a_rating"].write(watched / "grids" / "größe [1]")
    for options, status in (((), 0), (("--strict",), 1)):
        assert run_cli(str(master), "--json", *options) == status
        report = json.loads(capfd.readouterr().out)
        assert report["usable"]
        (finding,) = [f for f in report["findings"] if f["severity"] == "warning"]
        assert (finding["code"], finding["file"], finding["line"]) == ("no-rating", str(master), 4)
        assert report["snapshot"]["v_min_pu"] > 0.95


def test_command_with_a_crash_ends_with_status_three(watched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    master = Broken(DEADLY["too_many_phases"][0], "", "").write(watched / "grids" / "deadly")
    assert run_cli(str(master)) == 3
    assert "Master.dss:4: OpenDSS died of SIGSEGV" in capsys.readouterr().out


def test_command_with_an_unknown_option_ends_with_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("ieee13", "--jsn") == 2
    assert "No such option" in capsys.readouterr().err


# -- feeders of others


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="no upstream feeders beside the checkout")
@pytest.mark.parametrize("name", MASTERS)
def test_upstream_feeder_is_usable(name: str) -> None:
    report = inspect_feeder(UPSTREAM / name)
    assert report.errors == []
    assert (report.n_buses, report.n_nodes) == MASTERS[name]
    assert report.snapshot is not None
    assert report.snapshot.losses_kw > 0.0
    assert max(map(len, (line for _, line in report_lines(report)))) <= 100
    assert len(report_lines(report)) < 90
    assert verdict(report).startswith("Usable")


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="no upstream feeders beside the checkout")
def test_loads_of_the_upstream_34_bus_feeder_rated_line_to_line_on_one_phase_are_told() -> None:
    found = inspect_feeder(UPSTREAM / "34Bus" / "ieee34Mod1.dss").of_code("base-kv")
    assert [(f.line, "kV 24.9" in f.message, "14.38" in f.message) for f in found] == [
        (line, True, True) for line in range(121, 127)
    ]
