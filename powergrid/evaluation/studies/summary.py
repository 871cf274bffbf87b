"""Recorded days of one policy, summed up by day, node, branch and device in a utility's words; it plays nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from powergrid.errors import PowerGridError
from powergrid.evaluation.replay.recording import DayRecording
from powergrid.files import read_arrays, replacing
from powergrid.quantities import ANSI_RANGES, TERMS

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Ranges by the letter that columns have. At medium voltage the standard's own lower limits are 0.975 (A) and 0.95 (B);
#: as is usual in studies of whole feeders, all nodes are held to those of 600 V and less.
RANGES = {name.lower(): limits for name, limits in ANSI_RANGES.items()}
#: Highest voltage unbalance that the annex of ANSI C84.1 recommends at a meter without load [pu]; the measure of days
#: holds negative over positive sequence to it.
UNBALANCE_PU = 0.03
#: Limits of a bus, each for the definition of its standard, by the recorded quantity [pu]: EN 50160 holds negative over
#: positive sequence to 2 %, the annex of ANSI C84.1 the lines' distance from their mean (NEMA MG 1) to 3 %.
BUS_LIMITS = {"sequence": 0.02, "line": UNBALANCE_PU}
#: What kept sums consist of; a part of a study of another make is played anew.
_FORMAT = 2
#: What the columns begin with that count, device by device, the steps in which it was handed back.
_HANDED_BACK = "handed_back:"
#: Width of a bar of the voltage histogram, and its ends [pu]; beyond them nodes count in the outermost bars.
_BAR_PU, _HISTOGRAM_PU = 0.0025, (0.88, 1.12)


class Summary:
    """Add up recorded days of one policy.

    Attributes:
        rows: What each day came to: the columns of an evaluation and those of :data:`powergrid.quantities.STUDY`.
        source_kw: Import of each step of all days, by day [kW].
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.source_kw: list[FloatArray] = []
        self._names: dict[str, list[str]] = {}
        self._sums: dict[str, FloatArray] = {}

    def add(self, recording: DayRecording) -> None:
        """Take a recorded day; all have to be of one policy and scenario."""
        hours, fed = recording.step_minutes / 60.0, _counted(recording)
        v_pu, loading, moves = recording.nodes["v_pu"], recording.branches["loading_pu"], find_moves(recording)
        switched = np.array(list(moves.values()), dtype=np.float64)
        inside = np.clip(v_pu[fed], _edges()[0], _edges()[-1] - 1e-9)
        day = {
            **{f"node:{name}": values for name, values in _sum_nodes(v_pu, fed, hours).items()},
            **{f"bus:{name}": values for name, values in _sum_buses(recording, hours).items()},
            "branch:overload_h": hours * np.count_nonzero(loading > 1.0, axis=0),
            "branch:loading_max_pu": loading.max(axis=0),
            "gear:moves": switched,
            "gear:most_a_day": switched,
            **{f"device:{name}": values for name, values in _sum_devices(recording, hours).items()},
            "term:per_day": np.array([recording.agents[name].mean(axis=1).sum() for name in _terms_of(recording)]),
            "histogram": hours * np.histogram(inside, _edges())[0],
        }
        gear = list(moves)
        names = {"node": recording.nodes.names, "branch": recording.branches.names, "gear": gear}
        names |= {"device": recording.devices.names, "term": _terms_of(recording), "bus": recording.buses.names}
        names["phase"] = recording.feeder_network.served_phase.astype(str).tolist()
        self._names = {owner: list(own) for owner, own in names.items()}
        self._accumulate(day)
        self.source_kw.append(recording.network["source_p_kw"][:, 0])
        self.rows.append(recording.totals() | self._tell_day(recording, day, moves))

    @staticmethod
    def _tell_day(recording: DayRecording, day: Mapping[str, FloatArray], moves: Mapping[str, float]) -> dict[str, Any]:
        hours = recording.step_minutes / 60.0
        hours_of = {key.removeprefix("node:"): float(values.sum()) for key, values in day.items()}
        unbalanced = recording.network["network_unbalance_pu"] > UNBALANCE_PU
        return {
            **{
                f"range_{name}_node_hours": hours_of[f"below_{name}_h"] + hours_of[f"above_{name}_h"] for name in RANGES
            },
            "low_a_node_hours": hours_of["below_a_h"],
            "high_a_node_hours": hours_of["above_a_h"],
            "longest_a_h": float(day["node:longest_a_h"].max(initial=0.0)),
            "unbalance_hours": hours * float(np.count_nonzero(unbalanced)),
            "tap_moves": sum(n for name, n in moves.items() if not name.startswith(("capacitor.", "switch."))),
            "bank_moves": sum(n for name, n in moves.items() if name.startswith("capacitor.")),
            "battery_kwh": float(recording.agents["throughput_kwh"].sum()),
        }

    def merge(self, other: Summary) -> None:
        """Take what other days of the same policy and scenario came to."""
        self.rows += other.rows
        self.source_kw += other.source_kw
        self._names = self._names or other._names
        self._accumulate(other._sums)

    def _accumulate(self, day: Mapping[str, FloatArray]) -> None:
        for key, values in day.items():
            how: Any = np.add
            if key.endswith(("max_pu", "longest_a_h", "longest_b_h", "most_a_day")):
                how = np.maximum
            elif key.endswith("min_pu"):
                how = np.minimum
            self._sums[key] = how(self._sums[key], values) if key in self._sums else np.asarray(values, np.float64)

    # -- kept in a file

    def save(self, file: str | Path) -> None:
        """Write all of it, whole or not at all, as ``.npz`` without anything that runs when it is read."""
        facts = np.array(json.dumps({"format": _FORMAT, "rows": self.rows, "names": self._names}))
        days = {f"source:{i}": kw for i, kw in enumerate(self.source_kw)}
        arrays: dict[str, Any] = {"facts": facts, **days, **self._sums}
        with replacing(Path(file)) as place:
            np.savez_compressed(place, **arrays)

    @classmethod
    def load(cls, file: str | Path) -> Summary:
        """Read what :meth:`save` wrote.

        Raises:
            PowerGridError: the file is damaged.
        """
        summary, kept = cls(), read_arrays(Path(file))
        try:
            facts = json.loads(str(kept.pop("facts")))
            if facts.get("format") != _FORMAT:
                raise ValueError("another version wrote it")
            summary.rows, summary._names = facts["rows"], facts["names"]
            summary.source_kw = [kept.pop(f"source:{i}") for i in range(len(summary.rows))]
        except (ValueError, KeyError, TypeError) as error:
            raise PowerGridError(f"{file}: is no part of a study ({error}); delete it, and it is made anew") from None
        summary._sums = kept
        return summary

    # -- what all days came to

    def days(self) -> pd.DataFrame:
        """Return a row for each day."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def nodes(self) -> pd.DataFrame:
        """Return a row for each fed node: hours below and above ranges A and B, how often outside, longest, extremes.

        ``phase`` is that of the source which feeds it: both legs of a split-phase service have that of their primary.
        A time outside is one without a step inside; each day has its own.
        """
        bus = [name.rpartition(".")[0] for name in self._names["node"]]
        return self._table("node", self.counted, bus=bus, phase=self._names["phase"])

    def phases(self) -> pd.DataFrame:
        """Return a row for each phase of the source: its nodes, and of these what :meth:`nodes` has of each.

        Hours and times are summed over the nodes, the longest time and the extremes are those of the worst.
        """
        nodes = self.nodes()
        added = [name for name in map(str, nodes) if name.startswith(("below_", "above_", "times_"))]
        how = dict.fromkeys(added, "sum") | {"longest_a_h": "max", "longest_b_h": "max"}
        by_phase = nodes.groupby("phase")
        count = by_phase.size().rename("nodes")
        found = by_phase.agg(how | {"v_min_pu": "min", "v_max_pu": "max"})
        return found.join(count).reset_index()[["phase", "nodes", *found.columns]]

    def unbalance(self) -> pd.DataFrame:
        """Return a row for each bus with three phases: hours above the limits of unbalance, and the highest [pu].

        ``sequence`` is negative over positive sequence, held to 2 %, ``line`` the farthest that a line-to-line voltage
        is from the mean of the three, over it, held to 3 %.

        Source:
            IEC 61000-4-30 and EN 50160; NEMA MG 1 and the annex on unbalance of ANSI C84.1.
        """
        return self._table("bus", None)

    def branches(self) -> pd.DataFrame:
        """Return a row for each branch with a rating: hours above it, and its highest loading."""
        return self._table("branch", self._sums["branch:loading_max_pu"] > 0.0)

    def moves(self) -> pd.DataFrame:
        """Return a row for each thing that moves in steps: moves in all, a day, and on the day with most."""
        per_day = self._sums["gear:moves"] / max(len(self.rows), 1)
        return self._table("gear", None, moves_per_day=per_day).rename(columns={"gear": "element"})

    def handed_back(self) -> pd.DataFrame:
        """Return a row for each device that a limit may hand back: steps so a day, and on the day with most."""
        import pandas as pd

        days = pd.DataFrame(self.rows).filter(like=_HANDED_BACK)
        names = [str(column).removeprefix(_HANDED_BACK) for column in days]
        return pd.DataFrame(
            {"device": names, "steps_per_day": days.mean().to_numpy(), "most_a_day": days.max().to_numpy()}
        )

    def say_handed_back(self) -> str:
        """Say how often devices were handed back to the feeder's own controls; nothing where no limit does that."""
        found = [row["handed_back"] for row in self.rows if "handed_back" in row]
        steps = f"{np.mean(found):.1f} steps a day" if any(found) else "no step"
        return f"Its devices were handed back to the feeder's own controls in {steps}." if found else ""

    def devices(self) -> pd.DataFrame:
        """Return a row for each device with power: how far setpoints were moved to be feasible, what it gave and took.

        Columns are ``projected_h`` (hours in which a setpoint was moved), ``projected_kwh`` and ``projected_kvarh`` (by
        how much), ``delivered_kwh`` and ``taken_kwh``, NaN where a device has no power, and ``curtailed_kwh``, the sun
        that an inverter left, NaN of others.
        """
        return self._table("device", np.isfinite(self._sums["device:delivered_kwh"]))

    def terms(self, weights: Mapping[str, float]) -> pd.DataFrame:
        """Return a row for each reward term with a weight: mean of a day over agents, in its unit and weighed [USD]."""
        names = self._names["term"]
        frame = self._table("term", np.array([bool(weights.get(name)) for name in names]))
        frame["per_day"] /= max(len(self.rows), 1)
        return frame.assign(usd_per_day=frame["per_day"] * frame["term"].map(dict(weights)))

    def histogram(self) -> tuple[FloatArray, FloatArray]:
        """Return the edges of the bars [pu], and the part of all node-hours in each."""
        own = self._sums["histogram"]
        return _edges(), own / max(float(own.sum()), 1e-12)

    def duration(self) -> FloatArray:
        """Return the import of all steps, the highest first [kW]."""
        return np.sort(np.concatenate(self.source_kw))[::-1]

    @property
    def counted(self) -> BoolArray:
        """Which nodes count: those that were ever fed and are no neutrals, shape (n_nodes,)."""
        counted: BoolArray = np.isfinite(self._sums["node:v_min_pu"])
        return counted

    def _table(self, owner: str, kept: BoolArray | None, **more: Any) -> pd.DataFrame:
        import pandas as pd

        own = {key.partition(":")[2]: values for key, values in self._sums.items() if key.startswith(f"{owner}:")}
        frame = pd.DataFrame({owner: self._names[owner], **more, **own})
        return frame if kept is None else frame[kept].reset_index(drop=True)


def find_moves(recording: DayRecording) -> dict[str, float]:
    """Return positions moved on a day by what moves in steps: taps, banks, and switches that are devices."""
    gear = recording.switchgear
    moved = dict(zip(gear.names, gear["moved"].sum(axis=0).tolist(), strict=True)) if gear.names else {}
    switches = [name for name, spec in recording.specs.items() if spec.kind == "switch"]
    return moved | {f"switch.{name}": float(recording.devices.of(name, "operations").sum()) for name in switches}


def _counted(recording: DayRecording) -> BoolArray:
    """Return which voltages count at each step: those of fed nodes that are no neutrals, shape (n_steps, n_nodes)."""
    fed: BoolArray = (recording.nodes["energised"] > 0.0) & ~np.asarray(recording.feeder_network.is_neutral)
    return fed


def _sum_nodes(v_pu: FloatArray, fed: BoolArray, hours: float) -> dict[str, FloatArray]:
    """Return how long and how often each node was outside ranges A and B, and its extremes."""
    found: dict[str, FloatArray] = {}
    for name, (low, high) in RANGES.items():
        below, above = fed & (v_pu < low), fed & (v_pu > high)
        found[f"below_{name}_h"] = hours * np.count_nonzero(below, axis=0)
        found[f"above_{name}_h"] = hours * np.count_nonzero(above, axis=0)
        found[f"longest_{name}_h"] = (hours * _longest(below | above)).astype(np.float64)
        found[f"times_{name}"] = _count_times(below | above)
    found["v_min_pu"] = np.where(fed, v_pu, np.inf).min(axis=0)
    found["v_max_pu"] = np.where(fed, v_pu, -np.inf).max(axis=0)
    return found


def _sum_buses(recording: DayRecording, hours: float) -> dict[str, FloatArray]:
    """Return how long each bus with three phases was above the limits of unbalance, and the highest."""
    found: dict[str, FloatArray] = {}
    for name, limit in BUS_LIMITS.items():
        unbalance = recording.buses[f"{name}_unbalance_pu"]
        found[f"{name}_above_h"] = hours * np.asarray(np.count_nonzero(unbalance > limit, axis=0), np.float64)
        found[f"{name}_max_pu"] = unbalance.max(axis=0)
    return found


def _longest(on: BoolArray) -> npt.NDArray[np.int64]:
    """Return the most steps in a row that each column is true."""
    run = longest = np.zeros(on.shape[1], dtype=np.int64)
    for row in on:
        run = (run + 1) * row
        longest = np.maximum(longest, run)
    return longest


def _count_times(on: BoolArray) -> FloatArray:
    """Return how often each column becomes true."""
    times: FloatArray = (np.diff(on, axis=0, prepend=False) & on).sum(axis=0, dtype=np.float64)
    return times


def _sum_devices(recording: DayRecording, hours: float) -> dict[str, FloatArray]:
    """Return what each device's setpoints were moved by, and what it gave, took and left, on a day."""
    table = recording.devices
    p_kw = table["p_kw"]
    offered_kw = table.values.get("available_kw", np.full_like(p_kw, np.nan))
    off_kw, off_kvar = (np.nan_to_num(np.abs(table[f"asked_{q}"] - table[f"set_{q}"])) for q in ("p_kw", "q_kvar"))
    return {
        "projected_h": hours * np.count_nonzero(np.maximum(off_kw, off_kvar) > 1e-6, axis=0),
        "projected_kwh": hours * off_kw.sum(axis=0),
        "projected_kvarh": hours * off_kvar.sum(axis=0),
        "delivered_kwh": hours * np.maximum(p_kw, 0.0).sum(axis=0),
        "taken_kwh": hours * np.maximum(-p_kw, 0.0).sum(axis=0),
        "curtailed_kwh": hours * np.maximum(offered_kw - p_kw, 0.0).sum(axis=0),
    }


def _terms_of(recording: DayRecording) -> list[str]:
    return [name for name in TERMS if name in recording.agents.values]


def _edges() -> FloatArray:
    low, high = _HISTOGRAM_PU
    return np.linspace(low, high, round((high - low) / _BAR_PU) + 1)
