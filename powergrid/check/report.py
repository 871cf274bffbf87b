"""What a check of a feeder found: findings with file and line, what the feeder consists of; as data and as lines."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from powergrid.errors import FeederError, Problem, list_names
from powergrid.scenario.as_played import Played, summarise_played

SEVERITIES = ("error", "warning", "note")
_SHOWN = 5
_STYLES = {"error": "red", "warning": "yellow", "note": "cyan"}
_HEADINGS = {"error": "Errors", "warning": "Warnings", "note": "Notes"}

Line = tuple[str, str]


class Check(NamedTuple):
    """A kind of finding: how severe it is, its title, and what to do about it."""

    severity: str
    title: str
    remedy: str


#: Every kind of finding by its code; codes are stable. The reader's problems bring theirs from files and commands.
CHECKS: dict[str, Check] = {
    # -- files
    "no-feeder": Check("error", "No such feeder", "name a shipped feeder or a master file"),
    "missing-file": Check("error", "Missing files", "put the file there, or correct the name"),
    "file-case": Check("error", "File names in another letter case", "write the name as it is on the disk"),
    "unreadable-file": Check("error", "Files that cannot be read", "make it readable; a feeder is text"),
    "redirect-circle": Check("error", "Redirects in a circle", "take out the redirect that leads back"),
    "outside-root": Check("error", "Files outside the model's root",
        "bring the file inside, or name a root above both (--model-root)"),
    "refused": Check("error", "Refused", "take it out; or trust the feeder, where the line says so"),
    "program-library": Check("error", "Program libraries", "use a built-in model; a library is never loaded"),
    "rewriting-command": Check("error", "Commands that make another circuit",
        "run them in OpenDSS and save the circuit"),
    "no-circuit": Check("error", "No circuit", "a master file has 'New Circuit.<name>'; check that one"),
    "missing-data-file": Check("error", "Missing data files", "put the file there, or correct the name"),
    # -- commands
    "unclear": Check("error", "Lines that can be read in two ways", "write it as OpenDSS can take it in one way"),
    "mapped": Check("note", "Understood otherwise than written", "none needed; write it as this engine takes it"),
    "unknown-command": Check("error", "Lines that OpenDSS does not know", "correct or comment out the line"),
    "unknown-name": Check("error", "Names that are not defined", "define it before, or correct the name"),
    "unknown-property": Check("error", "Unknown properties and classes", "correct its name"),
    "duplicate-name": Check("error", "Names that are given twice",
        "rename one; OpenDSS would edit the first instead of adding a second"),
    "bad-value": Check("error", "Values that OpenDSS refuses", "correct the value"),
    "shell-command": Check("warning", "Commands for the machine, left out", "they are never run; take them out"),
    "writing-property": Check("warning", "Properties that write files, taken out",
        "take it out; the rest of the line is kept"),
    "dropped-circuit": Check("warning", "Elements before a Clear, dropped",
        "a master file holds one circuit; take the other out"),
    "left-out": Check("note", "Commands that describe nothing, left out", "none needed: the file is only read"),
    # -- elements
    "impossible-element": Check("error", "Elements that cannot be computed", "give it an impedance, length and wires"),
    "no-user-model": Check("error", "Models of the user's own", "use a built-in model; a library is never loaded"),
    "not-finite": Check("error", "Numbers that are not finite", "give a number"),
    "zero-kv": Check("error", "Elements for 0 kV", "give kV as on the nameplate"),
    "no-source": Check("error", "No source", "enable the circuit's Vsource"),
    "no-base-kv": Check("error", "No base voltage",
        "end with Set VoltageBases=[...], every level in it, and CalcVoltageBases"),
    "base-kv": Check("warning", "kV that does not fit the bus",
        "correct kV (line to line for 2 and 3 phases), or VoltageBases"),
    "no-bus": Check("warning", "Elements without a bus", "give bus1; OpenDSS makes up a bus that nothing feeds"),
    "no-rating": Check("warning", "Elements without a rating of their own",
        "give NormAmps to the line or its LineCode, kVA to a transformer, or norm_amps in the scenario; till then it "
        "has no loading and is never overloaded"),
    "completed": Check("note", "What the model leaves out, added", "none needed; write it into the model to be sure"),
    "disabled": Check("note", "Disabled elements", "none needed"),
    "no-coordinates": Check("note", "Buses without coordinates", "add them with BusCoords; only drawings need them"),
    "load-shape": Check("warning", "LoadShapes that do not say what they should", "see the LoadShape's npts and mult"),
    "no-load-shape": Check("note", "Loads without a LoadShape", "none needed; profiles come from the scenario then"),
    "not-controllable": Check("note", "Nothing to control",
        "add_der in a scenario places panels and batteries; devices may be at any bus"),
    "played-otherwise": Check("note", "Played by other means than written", "none needed; the line says by which"),
    "not-discovered": Check("note", "Left out of what agents would control", "none needed; the line names the key"),
    # -- solution
    "not-fed": Check("warning", "Loads that nothing feeds", "correct the bus, or close the switch"),
    "isolated-bus": Check("note", "Buses that nothing feeds", "none needed where a switch is meant to be open"),
    "no-convergence": Check("error", "The power flow does not converge", "see what helped"),
    "not-usable": Check("error", "It does not become a circuit", "see the message"),
    "voltage": Check("warning", "Voltages outside 0.95..1.05 pu at nominal demand",
        "none needed if agents are to put it right; else look at taps, capacitors and demand"),
    "hunting": Check("warning", "Controls of the feeder's own that do not come to rest",
        "widen its band: ONsetting to OFFsetting has to be more than the bank moves, a regulator's more than a tap; "
        "till then it is held in each step where it got to, which no real one does"),
    "extremes": Check("warning", "Does not solve where agents can take it",
        "such a step counts as diverged; give the devices lower limits, or look at the way to them"),
    "overload": Check("warning", "Branches loaded above their rating",
        "none needed if agents are to put it right; else look at its rating and at the demand"),
    # -- the check itself
    "engine-crashed": Check("error", "OpenDSS crashed", "correct the line; what comes after it was not checked"),
    "timed-out": Check("error", "The check took too long", "correct the line, or give it more time"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: ``error``: it does not work or is another circuit than meant; ``warning``: it works, and is
            probably not what was meant; ``note``: good to know.
        code: The kind, a key of :data:`CHECKS`.
        message: What came, in a sentence.
        file: The file that it stands in, empty where it is about the whole.
        line: The line, 0 where it is about a file or the whole.
        remedy: What to do.
    """

    severity: str
    code: str
    message: str
    file: str
    line: int
    remedy: str

    @property
    def where(self) -> str:
        """``file:line``, as errors show it."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Snapshot:
    """The solved state at nominal demand, the feeder's own controls having acted.

    Attributes:
        v_min_pu: Lowest voltage of a fed node [pu], and which, neutrals left out.
        v_max_pu: Highest.
        demand_kw: What all loads ask for [kW].
        source_kw: What the sources deliver [kW].
        losses_kw: Losses of lines and transformers [kW].
        loading_max_pu: Highest loading of a branch with a rating of its own [pu], NaN where there is none.
    """

    v_min_pu: float
    v_min_node: str
    v_max_pu: float
    v_max_node: str
    demand_kw: float
    source_kw: float
    losses_kw: float
    loading_max_pu: float | None
    loading_max_branch: str


@dataclass(slots=True)
class FeederReport:
    """Everything that a check found, whether or not it came to its end.

    Attributes:
        feeder: What was checked, as given.
        outcome: ``complete``, ``crashed`` or ``timed out``.
        findings: All of them, in the order found.
        master: Path of its master file, empty where there is none.
        name: Name of the feeder, empty where it was not read.
        elements: Enabled elements by class.
        n_buses: Buses.
        n_nodes: Nodes.
        voltage_levels: Line-to-line base voltage [kV] and number of buses there, highest first.
        sources: Name, bus, kV and pu of each.
        controllable: Names of what can be controlled, by class.
        islands: Bus names of each part that no source feeds.
        remedies: What was tried where the power flow did not converge: what, and what came of it.
        snapshot: The solved state, None where there is none.
        as_played: What would move each element: element, by what kind of thing, by which, its peak [kW].
        agents: Agents that would be formed: layout to agent to its devices; empty where it cannot be used as it is.
        confinement: What shut the process in that checked (``holds``), and what its system lacks for it (``missing``).
        last_command: ``file:line`` and text of what ran last, where the check did not come to its end.
        seconds: How long it took.
    """

    feeder: str
    outcome: str = "complete"
    findings: list[Finding] = field(default_factory=list)
    master: str = ""
    name: str = ""
    elements: dict[str, int] = field(default_factory=dict)
    n_buses: int = 0
    n_nodes: int = 0
    voltage_levels: list[tuple[float, int]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    controllable: dict[str, list[str]] = field(default_factory=dict)
    islands: list[list[str]] = field(default_factory=list)
    remedies: list[tuple[str, str]] = field(default_factory=list)
    snapshot: Snapshot | None = None
    as_played: list[tuple[str, str, str, float]] = field(default_factory=list)
    agents: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    confinement: dict[str, list[str]] = field(default_factory=dict)
    last_command: str = ""
    seconds: float = 0.0

    @property
    def errors(self) -> list[Finding]:
        """The findings that must be put right."""
        return self.of_severity("error")

    def of_severity(self, severity: str) -> list[Finding]:
        """Return the findings of a severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def of_code(self, code: str) -> list[Finding]:
        """Return the findings of a kind."""
        return [finding for finding in self.findings if finding.code == code]

    def exit_code(self, *, strict: bool = False) -> int:
        """Return the status for scripts: 0 usable, 1 errors (or warnings, if strict), 3 crashed or timed out."""
        if self.outcome != "complete":
            return 3
        return int(bool(self.errors or (strict and self.of_severity("warning"))))

    def raise_errors(self) -> None:
        """Raise the errors, if there are any.

        Raises:
            FeederError: with all of them.
        """
        if self.errors:
            raise FeederError(self.feeder, [Problem(f.code, f.where, f.message) for f in self.errors])

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data for JSON."""
        # JSON has no word for numbers that are not finite.
        plain = json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)
        return {**plain, "usable": not self.errors and self.outcome == "complete"}


class Recorder:
    """Take down what a check finds as it goes, in a report and in a file that outlives the process.

    Args:
        report: What is filled in.
        file: Where each event goes at once, a line of JSON each; nowhere if not given.
    """

    def __init__(self, report: FeederReport, file: str = "") -> None:
        self.report = report
        self._seen: set[Finding] = set()  # thousands on a large feeder: too many to look through each time
        # Not buffered: what is written is there when the engine ends the process.
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if file else None

    def at(self, text: str, where: str = "") -> None:
        """Say what is about to happen; with a place, which command."""
        self.state(last_command=f"{where}\t{text}" if where else text)

    def state(self, **facts: Any) -> None:
        """Fill in fields of the report."""
        for name, value in facts.items():
            setattr(self.report, name, value)
        self._write(facts)

    def find(self, code: str, message: str, where: object = "", *, severity: str = "", remedy: str = "") -> None:
        """Take down a finding at ``file:line``; severity and remedy are those of its kind unless given."""
        check, (file, line) = CHECKS[code], _split_place(str(where))
        finding = Finding(severity or check.severity, code, message, file, line, remedy or check.remedy)
        if finding not in self._seen:
            self._seen.add(finding)
            self.report.findings.append(finding)
            self._write({"finding": finding})

    def find_all(self, problems: Iterable[Problem], where: str) -> None:
        """Take down what the reader refused, where it says or at the place given; its codes are those of findings."""
        for problem in problems:
            self.find(problem.code, problem.message, problem.where or where)

    def _write(self, event: Mapping[str, Any]) -> None:
        if self._fd is not None:
            os.write(self._fd, json.dumps(event, default=asdict).encode("ascii") + b"\n")


def _split_place(where: str) -> tuple[str, int]:
    """Return file and line of ``file:line``, 0 where there is no line."""
    file, _, line = where.rpartition(":")
    return (file, int(line)) if file and line.isdigit() else (where, 0)


def read_events(file: Path, report: FeederReport) -> FeederReport:
    """Return a report with all that a :class:`Recorder` wrote to a file, as far as it came."""
    facts: dict[str, Any] = {**asdict(report), "findings": []}
    for line in file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else ():
        event = json.loads(line)  # the last line, if a kill cut it short, has no end and is not read
        facts["findings"] += [event.pop("finding")] if "finding" in event else []
        facts |= event
    return TypeAdapter(FeederReport).validate_python(facts)


# -- as lines for people


def report_lines(report: FeederReport, *, width: int = 100) -> list[Line]:
    """Return a report as lines of text, each with a style.

    Args:
        report: What a check found.
        width: Columns to keep to.
    """
    lines = [("bold", report.name or report.feeder)]
    lines += [("", part) for text in _facts(report) for part in _wrap(text, width, "  ")]
    folder = Path(report.master or report.feeder).parent
    for severity in SEVERITIES:
        found = report.of_severity(severity)
        if found:
            lines += [("", ""), (f"bold {_STYLES[severity]}", f"{_HEADINGS[severity]} ({len(found)})")]
            for code in dict.fromkeys(finding.code for finding in found):
                lines += _group([f for f in found if f.code == code], folder, width)
    return [*lines, ("", ""), *(("bold", part) for part in _wrap(verdict(report), width, ""))]


def verdict(report: FeederReport) -> str:
    """Return the outcome in one sentence."""
    counts = [(len(report.of_severity(severity)), severity) for severity in SEVERITIES]
    counted = ", ".join(f"{n} {severity}{'s' * (n != 1)}" for n, severity in counts if n) or "nothing to report"
    if report.outcome != "complete":
        return f"The check {report.outcome}: {counted}."
    return f"{'Not usable as it is' if report.errors else 'Usable'}: {counted}."


def _facts(report: FeederReport) -> Iterator[str]:
    if report.n_buses:
        levels = ", ".join(f"{kv:g} kV ({n})" for kv, n in report.voltage_levels) or "no base voltages"
        yield f"{report.n_buses} buses, {report.n_nodes} nodes; buses by line-to-line base: {levels}"
    if report.elements:
        yield "elements: " + ", ".join(f"{n} {name}" for name, n in report.elements.items())
    for source in report.sources:
        yield f"source: {source['name']} at bus {source['bus']!r}, {source['kv']:g} kV, {source['pu']:g} pu"
    for class_name, names in report.controllable.items():
        yield f"controllable: {len(names)} {class_name}: {list_names(names)}"
    if report.islands:
        n_buses, n_islands = sum(map(len, report.islands)), len(report.islands)
        parts = f" in {n_islands} islands" if n_islands > 1 else ""
        yield f"not fed: {n_buses} bus{'es' * (n_buses != 1)}{parts}"
    if report.snapshot is not None:
        s = report.snapshot
        yield (
            f"at nominal demand of {s.demand_kw:,.0f} kW: source {s.source_kw:,.0f} kW, losses {s.losses_kw:,.1f} kW, "
            f"voltages {s.v_min_pu:.3f} ({s.v_min_node}) .. {s.v_max_pu:.3f} pu ({s.v_max_node})"
            + (f", highest loading {s.loading_max_pu:.2f} ({s.loading_max_branch})" if s.loading_max_pu else "")
        )
    yield from (f"as played: {line}" for line in summarise_played([Played(*row) for row in report.as_played]))
    for layout, agents in report.agents.items():
        if all(len(devices) == 1 for devices in agents.values()):
            yield f"agents {layout}: {len(agents)} with one device each"
        else:
            yield f"agents {layout}: {list_names([f'{name} with {len(devices)}' for name, devices in agents.items()])}"
    for what, outcome in report.remedies:
        yield f"tried: {what}: {outcome}"
    if report.confinement:
        lacking = "; ".join(report.confinement["missing"])
        yield f"checked in a process shut in by {', '.join(report.confinement['holds'])}" + (
            f"; not shut in: {lacking}" if lacking else ""
        )


def _group(found: list[Finding], folder: Path, width: int) -> Iterator[Line]:
    """Return the findings of one kind: title, the first ones, the remedy once."""
    yield _STYLES[found[0].severity], f"  {CHECKS[found[0].code].title} [{found[0].code}] ({len(found)})"
    listed = found if len(found) <= _SHOWN + 1 else found[:_SHOWN]
    for finding in listed:
        text = ": ".join(filter(None, (_place(finding, folder), finding.message)))
        yield from (("", part) for part in _wrap(text, width, "    "))
    if len(listed) < len(found):
        yield "dim", f"    ... and {len(found) - len(listed)} more"
    for remedy in dict.fromkeys(finding.remedy for finding in found):
        yield from (("dim", part) for part in _wrap(f"-> {remedy}", width, "    "))


def _place(finding: Finding, folder: Path) -> str:
    if not finding.file:
        return ""
    file = Path(finding.file)
    shown = os.path.relpath(file, folder) if folder in file.parents else str(file)
    return f"{shown}:{finding.line}" if finding.line else shown


def _wrap(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    ) or [""]
