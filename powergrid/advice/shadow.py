"""Advice beside what was done: a log that grows with every reading, and what it comes to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from powergrid.advice.advisor import Advisor
from powergrid.advice.answer import Advice
from powergrid.advice.files import as_csv, as_lines
from powergrid.advice.readings import SoundReadings, check_readings
from powergrid.errors import PowerGridError, Problem, ScenarioError
from powergrid.files import append_whole, make_folder, replacing, telling

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".jsonl", ".parquet")
#: Entries that are kept in memory for whoever asks for them.
_MOST_KEPT = 20_000
COLUMNS = (
    *("time", "device", "kind", "agent", "quantity", "unit", "before", "asked", "advised", "done", "difference"),
    *("by", "why"),
)
#: Powers that differ by less count as the same, in parts of the larger one, and in kW.
_SAME_SHARE, _SAME_KW = 0.02, 0.5


class ShadowLog:
    """Advise without being followed, and keep what was advised beside what was done.

    What was done is what the next step's readings say of each device, or what :meth:`note` was told. Beside devices
    stand numbers of the whole ``network``: what the model reckons for what was advised and for what was done.

    Args:
        advisor: Who advises; its options say ``follows=False``, as nobody follows.
        file: Where entries are appended: ``.csv``, ``.jsonl`` or ``.parquet``; only in memory if None.

    Attributes:
        entries: The last entries, one for each setpoint of each step, in the order of ``COLUMNS``.

    Raises:
        ScenarioError: the suffix is none of these, or a file that is there has other columns.
    """

    def __init__(self, advisor: Advisor, file: str | Path | None = None) -> None:
        self.advisor, self.file = advisor, None if file is None else Path(file).expanduser()
        self.entries: list[dict[str, Any]] = []
        self._pending: Advice | None = None
        self._noted: dict[str, float] = {}
        advisor.compare_outcomes()
        if self.file is not None:
            self._require_fitting(self.file)

    def advise(self, readings: Any, time: Any = None) -> Advice:
        """Return advice, and log that of the step before beside what these readings say was done.

        A log that cannot be written is a problem of the advice, which is given all the same.
        """
        before = self._pending
        advice = self.advisor.advise(readings, time)
        if before is not None and advice.time > before.time:
            try:
                self._log(before, advice)
            except PowerGridError as error:
                problem = Problem("log-not-written", "log", str(error), "advice of the step before is not logged")
                advice = replace(advice, problems=(*advice.problems, problem))
            self._noted = {}
        self._pending = advice
        return advice

    def note(self, done: Any) -> SoundReadings:
        """Take what was done in the step that the last advice was for, by the names of readings; return what was read.

        It stands before what the next readings say.
        """
        sound = check_readings(done, self.advisor.catalogue)
        self._noted |= {self.advisor.catalogue.readings[place].name: v for place, v in sound.values.items()}
        return sound

    def finish(self) -> None:
        """Log the last advice, of which no later readings say what was done."""
        if self._pending is not None and self._noted:
            self._write([self._entry(self._pending, each, known=False) for each in self._pending.setpoints])
        self._pending, self._noted = None, {}

    def read(self) -> pd.DataFrame:
        """Return the whole log, with all that was in the file before."""
        import pandas as pd

        if self.file is None or not self.file.exists():
            return pd.DataFrame(self.entries, columns=list(COLUMNS))
        return read_log(self.file)

    # -- writing

    def _log(self, before: Advice, advice: Advice) -> None:
        """Log the advice of the step that has ended."""
        step = np.timedelta64(round(before.valid_minutes * 60), "s")
        next_one = bool(before.time + 2 * step > advice.time)  # else what was read is of another step
        rows = [self._entry(before, each, known=next_one) for each in before.setpoints]
        if next_one and (outcomes := self.advisor.outcomes) is not None:
            advised, done = outcomes
            rows += [
                _row(before, "network", "network", "", name, unit, None, None, advised[name], done[name], "model", "")
                for name, unit in OUTCOMES.items()
            ]
        self._write(rows)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.entries = [*self.entries, *rows][-_MOST_KEPT:]
        if self.file is not None:
            self._append(self.file, rows)

    def _entry(self, before: Advice, setpoint: Any, *, known: bool) -> dict[str, Any]:
        name = f"{setpoint.device}.{setpoint.quantity}"
        done = self._noted.get(name)
        if done is None and known:
            done = self.advisor.read_now(name)
        why = "; ".join(f"{cut.code}: {cut.text}" for cut in setpoint.cuts)
        return _row(
            before, setpoint.device, setpoint.kind, setpoint.agent, setpoint.quantity, setpoint.unit, setpoint.now,
            setpoint.asked, setpoint.set, done, setpoint.by, why,
        )  # fmt: skip

    def _append(self, file: Path, rows: list[dict[str, Any]]) -> None:
        make_folder(file.parent)
        kind, new = file.suffix.lower(), not file.exists()
        if kind == ".parquet":
            import pandas as pd

            frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(_TYPES)
            whole = frame if new else pd.concat([read_log(file).astype(_TYPES), frame], ignore_index=True)
            with telling(file), replacing(file) as temporary:
                whole.to_parquet(temporary, index=False)
        else:
            append_whole(file, as_lines(rows) if kind == ".jsonl" else as_csv(rows, header=new))

    @staticmethod
    def _require_fitting(file: Path) -> None:
        if file.suffix.lower() not in SUFFIXES:
            raise ScenarioError(str(file), [f"a shadow log is a file that ends in {', '.join(SUFFIXES)}"])
        if file.exists():
            read_log(file)


#: Numbers of the network that the model reckons for advice and for what was done.
OUTCOMES = {"violations": "nodes", "v_min_pu": "pu", "v_max_pu": "pu", "losses_kw": "kW", "source_p_kw": "kW"}
_NUMBERS = ("before", "asked", "advised", "done", "difference")
_TYPES: dict[str, Any] = {name: "float64" if name in _NUMBERS else "string" for name in COLUMNS}


def _row(
    advice: Advice, device: str, kind: str, agent: str, quantity: str, unit: str, before: float | None,
    asked: float | None, advised: float | None, done: float | None, by: str, why: str,
) -> dict[str, Any]:  # fmt: skip
    difference = None if advised is None or done is None else done - advised
    values = (str(advice.time), device, kind, agent, quantity, unit, before, asked, advised, done, difference, by, why)
    return dict(zip(COLUMNS, values, strict=True))


def read_log(file: str | Path) -> pd.DataFrame:
    """Return a shadow log.

    Raises:
        ScenarioError: it is not there, cannot be read or is none.
    """
    import pandas as pd

    path = Path(file).expanduser()
    try:
        if path.suffix.lower() == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            frame = pd.DataFrame([json.loads(line) for line in lines if line.strip()])
        else:
            frame = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError, RecursionError) as error:
        raise ScenarioError(str(file), [f"no shadow log that can be read: {error}"]) from None
    if list(frame.columns) != list(COLUMNS):
        raise ScenarioError(str(file), [f"is no shadow log: its columns are not {', '.join(COLUMNS)}"])
    return frame


def summarise(log: pd.DataFrame) -> pd.DataFrame:
    """Return what advice and deeds come to, a row for each quantity of each device.

    Columns are ``device``, ``quantity``, ``unit``, ``steps`` (logged), ``compared`` (both known), ``same_share`` (0..1
    of devices: positions equal, powers within 2 % or 0.5 kW), ``mean_advised``, ``mean_done``, ``mean_abs_difference``,
    and of switchgear ``moves_advised`` and ``moves_done``: positions from where it stood.
    """
    import pandas as pd

    groups = log.groupby(["device", "quantity"], sort=False)
    return pd.DataFrame([{"device": d, "quantity": q, **_sum_up(own)} for (d, q), own in groups])


def _sum_up(own: pd.DataFrame) -> dict[str, Any]:
    """Return the numbers of :func:`summarise` of one quantity of a device."""
    both, kind = own[own["advised"].notna() & own["done"].notna()], str(own["kind"].iloc[0])
    before, advised, done = (both[name].to_numpy(float) for name in ("before", "advised", "done"))
    position, apart = kind in ("capacitor", "regulator", "switch"), np.abs(done - advised)
    room = np.zeros(len(both)) if position else np.maximum(_SAME_SHARE * np.maximum(abs(advised), abs(done)), _SAME_KW)
    same = [] if kind == "network" else apart <= room
    moves = {"moves_advised": advised, "moves_done": done}
    return {
        "unit": str(own["unit"].fillna("").iloc[0]),
        "steps": len(own),
        "compared": len(both),
        "same_share": _mean(same),
        "mean_advised": _mean(advised),
        "mean_done": _mean(done),
        "mean_abs_difference": _mean(apart),
        **{name: float(np.nansum(np.abs(to - before))) if position else np.nan for name, to in moves.items()},
    }


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
