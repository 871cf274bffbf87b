"""One check from its files to its findings: in a process of its own, whatever the engine does to it, or in this one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from powergrid.check.report import FeederReport, Recorder, read_events
from powergrid.errors import EngineError, FeederError
from powergrid.files import path_of
from powergrid.grid.engine import Engine
from powergrid.grid.engine.confinement import Confinement, find_denied, limit_process
from powergrid.grid.engine.own_process import Ended, receive, run_apart, shut_in
from powergrid.grid.feeder.feeder import find_feeder, locate_feeder, read_feeder, scan_feeder
from powergrid.grid.feeder.trial import try_apart

_MODULE = "powergrid.check.inspection"


def check_feeder(
    path: str | Path,
    *,
    model_root: str | Path | None = None,
    trust: bool = False,
    ignore_case: bool = False,
    timeout_s: float = 120.0,
) -> FeederReport:
    """Report everything that is wrong with a feeder; nothing is written and nothing of it runs in this process.

    The feeder is read, compiled and solved in a process of its own, which the system lets read the model's root and
    Python's own files, write in a temporary folder, and start or reach nothing, limited in memory and time. Where
    OpenDSS crashes or does not come to an end, the report says so, with the command that ran last and all that was
    found until then.

    Args:
        path: Name of a shipped feeder or path of a master file.
        model_root: The folder that no file may be read outside of.
        trust: Lift what keeps a feeder from doing more than describe a circuit, but for the limits.
        ignore_case: Let file names differ from those on the disk in letter case.
        timeout_s: When to give up [s].
    """
    report = FeederReport(str(path))
    began = time.monotonic()
    try:
        report.master = str(find_feeder(path))
    except FeederError as error:
        Recorder(report).find_all(error.details, error.where)
        return report
    root = str(path_of(model_root).absolute()) if model_root else None
    options = {"model_root": root, "trust": trust, "ignore_case": ignore_case}
    with run_apart(_MODULE, {"feeder": report.master, "options": options, "timeout_s": timeout_s}, timeout_s) as ended:
        report = read_events(ended.answer, report)
    if ended.status != 0:
        _judge(report, ended, options)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _judge(report: FeederReport, ended: Ended, options: Mapping[str, Any]) -> None:
    """Say what became of the process that checked, which did not come to its end."""
    where, _, text = report.last_command.rpartition("\t")
    during = f"at {text!r}" if where else f"while {text or 'starting'}"
    code, what = ended.explain()
    report.outcome = "timed out" if code == "timed-out" else "crashed"
    report.last_command = report.last_command.replace("\t", ": ")
    recorder = Recorder(report)
    if code == "engine-crashed" and text and not options["trust"]:
        # What crashes later than at its own line is looked for as environments look for it.
        try:
            try_apart(read_feeder(report.master, **options), ended.timeout_s)
        except FeederError as error:
            if same := [problem for problem in error.details if problem.code == code and problem.where]:
                recorder.find(code, same[0].text, same[0].where)
                return
    recorder.find(code, f"{what} {during}", where)


# -- in the process that a check runs in


def main(folder: str) -> None:
    """Check the feeder that the folder's request names, shut in, and write what is found as events."""
    # What is needed to solve is imported before anything foreign is read, since little can be opened after.
    import powergrid.check.solution  # noqa: F401

    request, answer = receive(folder)
    recorder = Recorder(FeederReport(request["feeder"]), str(answer))
    Engine().close()  # what the engine reads when it starts, it reads before
    try:
        place = locate_feeder(request["feeder"], **request["options"])
    except FeederError as error:
        recorder.find_all(error.details, error.where)
        return
    timeout_s = float(request["timeout_s"])
    if place.trust:
        confinement = Confinement(
            tuple(filter(None, [limit_process(timeout_s)])), ("files and system calls: the feeder is trusted",)
        )
    else:
        confinement = shut_in(folder, [place.root, place.shipped, place.master, place.master.resolve()], timeout_s)
    recorder.state(confinement=asdict(confinement))
    report = inspect_feeder(request["feeder"], recorder, **request["options"])
    if denied := dict.fromkeys(path for finding in report.findings for path in find_denied(finding.message)):
        recorder.state(confinement=asdict(replace(confinement, denied=tuple(denied))))
    recorder.state(last_command="")  # it came to its end


def inspect_feeder(reference: str | Path, recorder: Recorder | None = None, **options: Any) -> FeederReport:
    """Check a feeder in this process, which a crash of the engine ends.

    Args:
        reference: Name of a shipped feeder or path of a master file.
        recorder: Where findings go as they are found.
        options: As :func:`~powergrid.grid.feeder.feeder.read_feeder` takes them.
    """
    # Not in the parent, which needs no engine for it.
    from powergrid.check.elements import Model, check_elements, check_files, compile_all

    recorder = recorder or Recorder(FeederReport(str(reference)))
    recorder.at("reading the files")
    try:
        feeder, problems = scan_feeder(reference, **options)
    except FeederError as error:
        recorder.find_all(error.details, error.where)
        return recorder.report
    recorder.state(master=str(feeder.master))
    recorder.find_all(problems, str(feeder.master))
    definitions = check_files(feeder, recorder)
    if not definitions.one_circuit:
        return recorder.report
    model = Model(feeder, Engine(), definitions, recorder, broken=bool(problems))
    try:
        compile_all(model)
        recorder.at("looking at the elements")
        check_elements(model)
        recorder.at("solving")
        from powergrid.check.solution import check_solution  # most of the time it takes to start: not before it is due

        check_solution(model)
    except EngineError as error:
        model.find("not-usable", str(error))
    finally:
        model.engine.close()
    return recorder.report
