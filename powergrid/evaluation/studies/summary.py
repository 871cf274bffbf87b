"""Recorded days of one policy, summed up by day, node, branch and device in a utility's words; it plays nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from powergrid.evaluation.replay.recording import DayRecording

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Ranges of ANSI C84.1-2020 for service voltage [pu]. At medium voltage the standard's own lower limits are 0.975 (A)
#: and 0.95 (B); as is usual in studies of whole feeders, all nodes are held to those of 600 V and less.
RANGES = {"a": (0.95, 1.05), "b": (0.917, 1.058)}
#: Highest voltage unbalance that the standard's annex recommends, negative over positive sequence here [pu].
UNBALANCE_PU = 0.03
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
        self._first: DayRecording | None = None
        self._node: dict[str, FloatArray] = {}
        self._branch: dict[str, FloatArray] = {}
        self._moved: dict[str, float] = {}
        self._most_moved: dict[str, float] = {}
        self._device: dict[str, FloatArray] = {}
        self._terms: dict[str, FloatArray] = {}
        self._histogram = np.zeros(len(_edges()) - 1)
        self._hours = 0.0

    def add(self, recording: DayRecording) -> None:
        """Take a recorded day; all have to be of one policy and scenario."""
        self._first = self._first or recording
        hours, fed = recording.step_minutes / 60.0, _counted(recording)
        v_pu = recording.nodes["v_pu"]
        node = {
            f"{side}_{name}_h": hours * np.count_nonzero(outside, axis=0)
            for name, (low, high) in RANGES.items()
            for side, outside in (("below", fed & (v_pu < low)), ("above", fed & (v_pu > high)))
        }
        outside = fed & ((v_pu < RANGES["a"][0]) | (v_pu > RANGES["a"][1]))
        longest = hours * _longest(outside)
        _accumulate(self._node, node, np.add)
        _accumulate(self._node, {"longest_a_h": longest}, np.maximum)
        _accumulate(self._node, {"v_max_pu": np.where(fed, v_pu, -np.inf).max(axis=0)}, np.maximum)
        _accumulate(self._node, {"v_min_pu": np.where(fed, v_pu, np.inf).min(axis=0)}, np.minimum)
        inside = np.clip(v_pu[fed], _edges()[0], _edges()[-1] - 1e-9)
        self._histogram += hours * np.histogram(inside, _edges())[0]
        loading = recording.branches["loading_pu"]
        _accumulate(self._branch, {"overload_h": hours * np.count_nonzero(loading > 1.0, axis=0)}, np.add)
        _accumulate(self._branch, {"loading_max_pu": loading.max(axis=0)}, np.maximum)
        moves = find_moves(recording)
        for name, count in moves.items():
            self._moved[name] = self._moved.get(name, 0.0) + count
            self._most_moved[name] = max(self._most_moved.get(name, 0.0), count)
        _accumulate(self._device, _sum_devices(recording, hours), np.add)
        terms = {name: values.sum(axis=0) for name, values in recording.agents.values.items() if name != "reward"}
        _accumulate(self._terms, terms, np.add)
        self.source_kw.append(recording.network["source_p_kw"][:, 0])
        self._hours += hours * recording.n_steps
        unbalanced = recording.network["network_unbalance_pu"] > UNBALANCE_PU
        throughput = recording.agents["throughput_kwh"].sum() if "throughput_kwh" in recording.agents.values else 0.0
        self.rows.append(
            recording.totals()
            | {f"range_{name}_node_hours": float(node[f"below_{name}_h"].sum() + node[f"above_{name}_h"].sum())
               for name in RANGES}
            | {
                "low_a_node_hours": float(node["below_a_h"].sum()),
                "high_a_node_hours": float(node["above_a_h"].sum()),
                "longest_a_h": float(longest.max(initial=0.0)),
                "unbalance_hours": hours * float(np.count_nonzero(unbalanced)),
                "tap_moves": sum(count for name, count in moves.items() if _is_tap(name)),
                "bank_moves": sum(count for name, count in moves.items() if name.startswith("capacitor.")),
                "battery_kwh": float(throughput),
            }
        )  # fmt: skip

    # -- what all days came to

    def days(self) -> pd.DataFrame:
        """Return a row for each day."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def nodes(self) -> pd.DataFrame:
        """Return a row for each node: hours below and above ranges A and B, longest time outside A, extremes."""
        first, order = self._require(), ("below_a_h", "above_a_h", "below_b_h", "above_b_h", "longest_a_h")
        names = np.array(first.nodes.names)
        bus, phase = (np.array(each) for each in zip(*(name.rpartition(".")[::2] for name in names), strict=True))
        told = {"node": names, "bus": bus, "phase": phase}
        kept = np.asarray(np.isfinite(self._node["v_min_pu"]))  # fed in any step
        return _frame(told | {name: self._node[name] for name in (*order, "v_min_pu", "v_max_pu")}, kept)

    def branches(self) -> pd.DataFrame:
        """Return a row for each branch with a rating: hours above it, and its highest loading."""
        told = {"branch": np.array(self._require().branches.names), **self._branch}
        return _frame(told, np.asarray(self._branch["loading_max_pu"] > 0.0))

    def moves(self) -> pd.DataFrame:
        """Return a row for each thing that moves in steps: moves in all, a day, and on the day with most."""
        import pandas as pd

        n_days = max(len(self.rows), 1)
        rows = [
            {"element": name, "moves": count, "moves_per_day": count / n_days, "most_a_day": self._most_moved[name]}
            for name, count in self._moved.items()
        ]
        return pd.DataFrame(rows, columns=["element", "moves", "moves_per_day", "most_a_day"])

    def devices(self) -> pd.DataFrame:
        """Return a row for each device with power: how far setpoints were moved to be feasible, what it gave and took.

        Columns are ``projected_h`` (hours in which a setpoint was moved), ``projected_kwh`` and ``projected_kvarh`` (by
        how much), ``delivered_kwh`` and ``taken_kwh``.
        """
        first = self._require()
        told = {"device": np.array(first.devices.names), **self._device}
        return _frame(told, np.asarray(np.isfinite(first.devices["p_kw"]).any(axis=0)))

    def terms(self, weights: Mapping[str, float]) -> pd.DataFrame:
        """Return a row for each reward term with a weight: mean of a day over agents, in its unit and weighed [USD]."""
        import pandas as pd

        n_days = max(len(self.rows), 1)
        found = {name: float(values.mean()) / n_days for name, values in self._terms.items() if weights.get(name)}
        rows = [{"term": name, "per_day": value, "usd_per_day": value * weights[name]} for name, value in found.items()]
        return pd.DataFrame(rows, columns=["term", "per_day", "usd_per_day"])

    def histogram(self) -> tuple[FloatArray, FloatArray]:
        """Return the edges of the bars [pu], and the part of all node-hours in each."""
        return _edges(), self._histogram / max(self._histogram.sum(), 1e-12)

    def duration(self) -> FloatArray:
        """Return the import of all steps, the highest first [kW]."""
        return np.sort(np.concatenate(self.source_kw))[::-1]

    @property
    def hours(self) -> float:
        """Hours that were played."""
        return self._hours

    @property
    def n_nodes(self) -> int:
        """Nodes that count: fed ones that are no neutrals."""
        return int(np.isfinite(self._node["v_min_pu"]).sum())

    def _require(self) -> DayRecording:
        assert self._first is not None, "no day was added"
        return self._first


def find_moves(recording: DayRecording) -> dict[str, float]:
    """Return positions moved on a day by what moves in steps: taps, banks, and switches that are devices."""
    gear = recording.switchgear
    moved = dict(zip(gear.names, gear["moved"].sum(axis=0).tolist(), strict=True)) if gear.names else {}
    switches = [name for name, spec in recording.specs.items() if spec.kind == "switch"]
    return moved | {f"switch.{name}": float(recording.devices.of(name, "operations").sum()) for name in switches}


def _is_tap(name: str) -> bool:
    return not name.startswith(("capacitor.", "switch."))


def _counted(recording: DayRecording) -> BoolArray:
    """Return which voltages count at each step: those of fed nodes that are no neutrals, shape (n_steps, n_nodes)."""
    fed: BoolArray = (recording.nodes["energised"] > 0.0) & ~np.asarray(recording.feeder_network.is_neutral)
    return fed


def _longest(on: BoolArray) -> npt.NDArray[np.int64]:
    """Return the most steps in a row that each column is true."""
    run = longest = np.zeros(on.shape[1], dtype=np.int64)
    for row in on:
        run = (run + 1) * row
        longest = np.maximum(longest, run)
    return longest


def _sum_devices(recording: DayRecording, hours: float) -> dict[str, FloatArray]:
    """Return what each device's setpoints were moved by, and what it gave and took, on a day."""
    table = recording.devices
    p_kw = np.nan_to_num(table["p_kw"])
    off_kw, off_kvar = (np.nan_to_num(np.abs(table[f"asked_{q}"] - table[f"set_{q}"])) for q in ("p_kw", "q_kvar"))
    return {
        "projected_h": hours * np.count_nonzero(np.maximum(off_kw, off_kvar) > 1e-6, axis=0),
        "projected_kwh": hours * off_kw.sum(axis=0),
        "projected_kvarh": hours * off_kvar.sum(axis=0),
        "delivered_kwh": hours * np.maximum(p_kw, 0.0).sum(axis=0),
        "taken_kwh": hours * np.maximum(-p_kw, 0.0).sum(axis=0),
    }


def _accumulate(into: dict[str, FloatArray], values: Mapping[str, Any], how: Any) -> None:
    for name, value in values.items():
        into[name] = how(into[name], value) if name in into else np.asarray(value, dtype=np.float64)


def _frame(columns: Mapping[str, Any], kept: BoolArray) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns)[kept].reset_index(drop=True)


def _edges() -> FloatArray:
    low, high = _HISTOGRAM_PU
    return np.linspace(low, high, round((high - low) / _BAR_PU) + 1)
