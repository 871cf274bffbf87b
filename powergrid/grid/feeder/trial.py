"""Compile a foreign feeder for the first time where it can do no harm, and only then in this process.

A feeder that comes with the package needs no trial. Any other is compiled and solved once in a process of its own that
is shut in; what crashes, hangs or reaches out there is an error with file and line. That a content came through is kept
in the user's cache, and its network, so that nothing is described twice. So is one that is trusted, as long as it only
describes a circuit: what writes files or loads a library would do so twice, and not at all where it is shut in.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from powergrid.errors import FeederError, Problem, shorten
from powergrid.grid.engine.cache_folder import Cache
from powergrid.grid.engine.own_process import TRIAL_VARIABLE, Ended, run_apart
from powergrid.grid.feeder.feeder import Feeder, entry_key, models_folder
from powergrid.grid.feeder.reading.syntax import DESCRIBING, EDITING, Command

__all__ = ["PROGRESS_BYTES", "admit", "decode_feeder", "tried", "try_apart", "watch"]

_PROCESS = "powergrid.grid.circuit.trial_run"
_DEFAULT_S = 120.0
_CULPRIT_S = 20.0
_PER_COMMAND_S = 2e-3  # a model of 100,000 nodes has half a million
#: An answer begins with the number of commands that were begun, one more once all of them are through.
PROGRESS_BYTES = 12
_REMEDIES = {
    "engine-crashed": "correct the line, or what it refers to",
    "timed-out": f"correct the line, or give it more time: {TRIAL_VARIABLE}=600",
    "refused": "a feeder describes a circuit: take the line out",
}
#: What writes a file or loads a library, where it is set.
_ACTING = re.compile(r"usermodel|shaftmodel|dynadll|debugtrace|memorymapping|\baction\b", re.IGNORECASE)
_watcher: Callable[[int], None] | None = None

#: Contents that came through their trial; the text says how it was shut in.
tried: Cache[str] = Cache("tried", lambda text: (text, {}), lambda text, _: text)


def watch(report: Callable[[int], None]) -> None:
    """Call a function with the number of each command before it is compiled in this process, from 1."""
    global _watcher
    _watcher = report


def admit(feeder: Feeder, learn: Callable[[bytes], None] = lambda _: None) -> Callable[[int], None] | None:
    """Try a feeder that is not known to be harmless in a process of its own; the function to call before each command.

    Args:
        feeder: The feeder.
        learn: Called with the network that the trial described, packed, if there was one.

    Raises:
        FeederError: It crashed OpenDSS, took too long, asked for what a feeder may not have, or is wrong.
    """
    if _watcher is None and not _is_shipped(feeder) and not (feeder.trust and _acts(feeder)):
        seconds = _patience(len(feeder.commands))
        if seconds > 0.0:
            _try_once(feeder, seconds, learn)
    return _watcher


def _is_shipped(feeder: Feeder) -> bool:
    own = models_folder().resolve()
    return bool(feeder.files) and all(file.resolve().is_relative_to(own) for file in feeder.files)


def _acts(feeder: Feeder) -> bool:
    """Whether a trusted feeder does, or may do, more than describe a circuit."""
    return any((c.verb not in DESCRIBING and not c.assigns) or _ACTING.search(c.text) for c in feeder.commands)


def _patience(n_commands: int) -> float:
    """Return how long a trial may take [s], 0 for none.

    Raises:
        FeederError: The variable that says so holds no number.
    """
    written = os.environ.get(TRIAL_VARIABLE, "")
    if not written:
        return _DEFAULT_S + _PER_COMMAND_S * n_commands
    with contextlib.suppress(ValueError):
        if 0.0 <= (seconds := float(written)) < 1e9:
            return seconds
    text = f"is {written!r}, not a number of seconds"
    raise FeederError(TRIAL_VARIABLE, [Problem("bad-value", "", text, "0 leaves the trial out")])


def _try_once(feeder: Feeder, seconds: float, learn: Callable[[bytes], None]) -> None:
    key = entry_key("tried", feeder.key)
    if tried.recall(key) is None:
        with tried.alone(key):
            if tried.recall(key) is None:  # another process may have tried it meanwhile
                tried.keep(key, try_apart(feeder, seconds, learn))


def try_apart(feeder: Feeder, seconds: float, learn: Callable[[bytes], None] = lambda _: None) -> str:
    """Compile and solve a feeder in a process of its own, and say how that was shut in.

    Args:
        feeder: The feeder.
        seconds: When to give up [s].
        learn: As of :func:`admit`.

    Raises:
        FeederError: It did not come through, or is wrong.
    """
    ended, n_begun, answer, network = _run(feeder, seconds)
    if answer is None:
        raise FeederError(str(feeder.master), [_describe_end(feeder, ended, n_begun)])
    if answer["problems"]:
        raise FeederError(answer["where"], [Problem(*problem) for problem in answer["problems"]])
    if network and not feeder.microgrids:  # of which the trial is told nothing
        learn(network)
    return str(answer["confinement"])


def _run(feeder: Feeder, seconds: float) -> tuple[Ended, int, dict[str, Any] | None, bytes]:
    """Run one trial: how its process ended, how many commands it began, its answer if it came to one, the network.

    Raises:
        FeederError: No process could be started.
    """
    try:
        with run_apart(_PROCESS, {"feeder": _encode(feeder), "timeout_s": seconds}, seconds) as ended:
            said = ended.answer.read_bytes() if ended.answer.is_file() else b""
    except OSError as error:
        raise _not_started(feeder, str(error)) from None
    if not said and ended.status is not None:
        raise _not_started(feeder, ended.last_words or ended.explain()[1])
    came = not ended.status and len(said) > PROGRESS_BYTES
    answer, _, network = said[PROGRESS_BYTES:].partition(b"\n")
    return ended, int(said[:PROGRESS_BYTES] or 0), json.loads(answer) if came else None, network


def _describe_end(feeder: Feeder, ended: Ended, n_begun: int) -> Problem:
    """Say what became of a trial, and at which command."""
    code, text = ended.explain()
    if not n_begun:
        return Problem(code, "", f"{text} before the first command", _REMEDIES[code])
    last = feeder.commands[n_begun - 1] if n_begun <= len(feeder.commands) else None
    during = "while the circuit was built and solved" if last is None else f"at {shorten(last.text)!r}"
    # What crashes later than at its own command, once the circuit is put together or given back, is looked for.
    culprit = _find_culprit(feeder) if code == "engine-crashed" and (last is None or not _defines(last)) else None
    if culprit is not None:
        return Problem(code, culprit.where, f"{text} {during}, because of {shorten(culprit.text)!r}", _REMEDIES[code])
    return Problem(code, last.where if last is not None else "", f"{text} {during}", _REMEDIES[code])


def _find_culprit(feeder: Feeder) -> Command | None:
    """Return the element without which what is before it comes through, None where it is not found in time."""
    defining = [place for place, command in enumerate(feeder.commands) if _defines(command)]
    fine, crashing, until = 0, len(defining), time.monotonic() + _CULPRIT_S
    while crashing - fine > 1:
        left = until - time.monotonic()
        if left <= 0.0:
            return None
        middle = (fine + crashing) // 2
        without = set(defining[middle:])
        kept = tuple(command for place, command in enumerate(feeder.commands) if place not in without)
        ended, _, answer, _ = _run(replace(feeder, commands=kept), left)
        if ended.status is None:
            return None
        fine, crashing = (middle, crashing) if answer is not None else (fine, middle)
    return feeder.commands[defining[crashing - 1]] if defining else None


def _defines(command: Command) -> bool:
    """Whether a command defines or edits an element."""
    return command.verb in EDITING or command.assigns


def _not_started(feeder: Feeder, reason: str) -> FeederError:
    text = f"its first compile needs a process of its own, which did not start: {reason}"
    remedy = f"{TRIAL_VARIABLE}=0 compiles it in this one"
    return FeederError(str(feeder.master), [Problem("not-usable", "", text, remedy)])


def _encode(feeder: Feeder) -> dict[str, Any]:
    """Return what is compiled of a feeder as data."""
    places = list(dict.fromkeys(command.file for command in feeder.commands))
    index = {file: position for position, file in enumerate(places)}
    return {
        "name": feeder.name,
        "master": str(feeder.master),
        "circuit": feeder.circuit,
        "places": list(map(str, places)),
        "commands": [[index[c.file], c.line, c.text] for c in feeder.commands],
        "files": list(map(str, feeder.files)),
        "settings": dict(feeder.settings),
        "names_differ": feeder.names_differ,
    }


def decode_feeder(data: Mapping[str, Any]) -> Feeder:
    """Return a feeder that compiles to the same circuit as the one that a trial is of."""
    places = list(map(Path, data["places"]))
    return Feeder(
        name=data["name"],
        master=Path(data["master"]),
        commands=tuple(Command(places[place], line, text) for place, line, text in data["commands"]),
        left_out=(),
        digest="",
        circuit=data["circuit"],
        files=tuple(map(Path, data["files"])),
        settings=data["settings"],
        names_differ=data["names_differ"],
    )
