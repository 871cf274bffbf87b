"""The page of a replay: one HTML file with the day of several policies in it, which needs nothing else to be read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import powergrid
from powergrid.errors import ScenarioError
from powergrid.evaluation.drawing.charts import PHASE_COLOURS
from powergrid.evaluation.replay.packing import Packing
from powergrid.evaluation.replay.recording import DayRecording
from powergrid.evaluation.replay.scene import make_scene
from powergrid.files import make_folder, write_whole
from powergrid.quantities import ANSI_RANGES

#: Most that a page weighs [bytes]: beyond it browsers open slowly, and mail turns it away.
MAX_BYTES = 15_000_000
#: What is left out of a page that would weigh more, in this order, and what is said of it.
_DISPENSABLE = (
    ("reactive", "reactive power of branches"),
    ("flows", "power of branches"),
    ("every second step", "every second step"),
)


def make_page(recordings: Sequence[DayRecording], files: Sequence[str] = ()) -> str:
    """Return the page of a day as several policies played it.

    Args:
        recordings: The day by policy, of one scenario; the first two are shown side by side at first.
        files: Names of the files beside the page that hold every number.

    Raises:
        ScenarioError: the recordings are none, or not of one day of one scenario.
    """
    if len({(each.scenario, each.date, each.nodes.names) for each in recordings}) != 1:
        raise ScenarioError("replay", ["a page shows one day of one scenario, by one policy or more"])
    scene, left_out = make_scene(recordings[0]), list[str]()
    page = _fill(recordings, scene, files, left_out)
    for key, _ in _DISPENSABLE:
        if len(page) <= MAX_BYTES:
            break
        left_out.append(key)
        page = _fill(recordings, scene, files, left_out)
    return page


def write_page(recordings: Sequence[DayRecording], file: str | Path, files: Sequence[str] = ()) -> Path:
    """Write the page of a day, see :func:`make_page`; the folder is made."""
    path = Path(file).expanduser()
    make_folder(path.parent)
    write_whole(path, make_page(recordings, files))
    return path


def _fill(
    recordings: Sequence[DayRecording], scene: dict[str, Any], files: Sequence[str], left_out: Sequence[str]
) -> str:
    packing, first = Packing(), recordings[0]
    kept = slice(None, None, 2 if "every second step" in left_out else 1)
    for number, recording in enumerate(recordings):
        _pack(packing, f"{number}.", recording, kept, left_out)
    facts = {
        "scenario": first.scenario,
        "feeder": Path(first.feeder).stem,
        "date": first.date,
        "split": first.split,
        "times": [str(time)[11:16] for time in first.times[kept]] if first.n_steps <= 1440 // first.step_minutes else [
            str(time)[5:16].replace("T", " ") for time in first.times[kept]
        ],
        "hours": [round(float(h), 4) for h in (first.times[kept] - first.times[0]) / np.timedelta64(1, "h")],
        "step_h": first.step_minutes / 60.0,
        "band": first.band,
        "ansi": ANSI_RANGES,
        "phases": PHASE_COLOURS,
        "policies": [_describe(recording) for recording in recordings],
        "scene": scene,
        "parts": packing.parts,
        "gear": _describe_gear(first),
        "devices": [{"name": name, "kind": spec.kind, **_ratings(spec)} for name, spec in first.specs.items()],
    }  # fmt: skip
    told = [words for key, words in _DISPENSABLE if key in left_out]
    return str(
        _template().render(
            title=f"{first.scenario} on {first.date}",
            facts=facts,
            numbers=packing.pack(),
            left_out=told,
            files=list(files),
            version=powergrid.__version__,
            css=_read("page.css"),
            script=_read("page.js"),
        )
    )


def _pack(packing: Packing, prefix: str, recording: DayRecording, kept: slice, left_out: Sequence[str]) -> None:
    """Pack what a page shows of a recording, each number as finely as it can be seen."""

    def add(name: str, values: npt.NDArray[Any], step: float, kind: str = "uint16") -> None:
        packing.add(prefix + name, values[kept], step, kind)

    live = (recording.nodes["energised"] > 0.0) & (recording.nodes["v_pu"] > 0.1)
    add("v_pu", np.where(live, recording.nodes["v_pu"], 0.0), 1e-4)
    branches = recording.branches
    add("loading", branches["loading_pu"], 0.01, "uint8")
    if not (branches["closed"] == branches["closed"][:1]).all():
        add("closed", branches["closed"], 1.0, "uint8")
    if "flows" not in left_out:
        packing.add_scaled(prefix + "p_kw", branches["p_kw"][kept])
        if "reactive" not in left_out:
            packing.add_scaled(prefix + "q_kvar", branches["q_kvar"][kept])
    add("position", recording.switchgear["position"], 1.0, "int16")
    for table, group in ((recording.devices, "device"), (recording.network, "network"), (recording.agents, "agent")):
        for quantity, values in table.values.items():
            if np.isfinite(values).any():
                packing.add_scaled(f"{prefix}{group}.{quantity}", values[kept])


def _describe(recording: DayRecording) -> dict[str, Any]:
    totals = {
        name: value if isinstance(value, str | bool) else round(float(value), 6)
        for name, value in recording.totals().items()
    }
    return {
        "name": recording.policy,
        "kind": recording.kind,
        "finished": recording.finished,
        "steps": recording.n_steps,
        "notes": recording.notes,
        "totals": totals,
        "agents": recording.agents.names,
    }


def _describe_gear(recording: DayRecording) -> list[dict[str, Any]]:
    """Return kind, name and highest position of what moves in steps."""
    return [
        {"kind": "capacitor" if name.startswith("capacitor.") else "regulator", "name": name.partition(".")[2],
         "most": int(np.nanmax(recording.switchgear.of(name, "position")))}
        for name in recording.switchgear.names
    ]  # fmt: skip


def _ratings(spec: Any) -> dict[str, float]:
    """Return what a tooltip says of a device's ratings."""
    keys = ("p_max_kw", "p_charge_max_kw", "s_max_kva", "e_max_kwh", "steps", "tap_min", "tap_max", "ports")
    return {key: value for key in keys if (value := getattr(spec, key, None)) is not None}


def _read(name: str) -> str:
    return (resources.files("powergrid.evaluation.replay") / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _template() -> Any:
    from jinja2 import Environment

    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_read("page.html.jinja"))
