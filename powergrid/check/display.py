"""A report as lines for people; all of it is in the report itself."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

from powergrid.check.report import CHECKS, SEVERITIES, FeederReport, Finding

_SHOWN = 5
_SHOWN_NAMES = 8
_STYLES = {"error": "red", "warning": "yellow", "note": "cyan"}
_HEADINGS = {"error": "Errors", "warning": "Warnings", "note": "Notes"}

Line = tuple[str, str]


def report_lines(report: FeederReport, *, width: int = 100, shown: int = _SHOWN) -> list[Line]:
    """Return a report as lines of text, each with a style.

    Args:
        report: What a check found.
        width: Columns to keep to.
        shown: How many findings of a kind are listed; the rest is counted.
    """
    lines = [("bold", report.name or report.feeder)]
    lines += [("", part) for text in _facts(report) for part in _wrap(text, width, "  ")]
    folder = Path(report.master or report.feeder).parent
    for severity in SEVERITIES:
        found = report.of_severity(severity)
        if found:
            lines += [("", ""), (f"bold {_STYLES[severity]}", f"{_HEADINGS[severity]} ({len(found)})")]
            for code in dict.fromkeys(finding.code for finding in found):
                lines += _group([f for f in found if f.code == code], folder, width, shown)
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
        yield f"controllable: {len(names)} {class_name}: {_names(names)}"
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
    for layout, agents in report.agents.items():
        if all(len(devices) == 1 for devices in agents.values()):
            yield f"agents {layout}: {len(agents)} with one device each"
        else:
            yield f"agents {layout}: {_names([f'{name} with {len(devices)}' for name, devices in agents.items()])}"
    for what, outcome in report.remedies:
        yield f"tried: {what}: {outcome}"


def _names(names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def _group(found: list[Finding], folder: Path, width: int, shown: int) -> Iterator[Line]:
    """Return the findings of one kind: title, the first ones, the remedy once."""
    yield _STYLES[found[0].severity], f"  {CHECKS[found[0].code].title} [{found[0].code}] ({len(found)})"
    listed = found if len(found) <= shown + 1 else found[:shown]
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
