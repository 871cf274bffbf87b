"""Write the tables of docs/devices.md, metrics.md, profiles.md, as_played.md, training.md and algorithms.md.

Text between ``<!-- begin: name -->`` and ``<!-- end: name -->`` is replaced, all else is left as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from as_played_classes import rows as classes_as_played
from make_environment_page import describe_default, describe_meaning, describe_type, fill_page, list_keys, write_table
from pydantic import BaseModel

from powergrid.grid.devices import SPECS
from powergrid.measurements.vocabulary import ColumnSpec, GapRule, ImportMap, LongSpec, OutlierRule, TimeSpec
from powergrid.quantities import EVALUATION, RECORDED, STEP, STUDY, TRAINING, Quantity
from powergrid.training.runs.search_space import SPACES, describe_domain
from powergrid.training.runs.settings import ALIASES, PRESETS, SETTINGS, TrainSettings, fields_of

DOCS = Path(__file__).resolve().parents[1] / "docs"


def make_device(kind: str) -> str:
    """Write the keys of a kind of device."""
    fields = [(name, info) for name, info in SPECS[kind].model_fields.items() if name != "kind"]
    rows = ((f"`{n}`", describe_type(f.annotation), describe_default(f), f.description or "") for n, f in fields)
    return write_table(("key", "value", "default", "meaning"), rows)


def make_step() -> str:
    """Write every number in infos: the reward's terms and all else."""
    rows = ((f"`{q.name}`", q.unit, q.owner, q.daily, describe_meaning(q)) for q in STEP if q.unit != "text")
    return write_table(("name", "unit", "of", "over an episode", "meaning"), rows)


def make_training() -> str:
    """Write the names in ``progress.csv`` and TensorBoard, with RLlib's own where it has one."""
    rows = ((f"`{q.name}`", q.unit, describe_meaning(q), q.theirs and f"`{q.theirs}`") for q in TRAINING)
    return write_table(("name", "unit", "meaning", "RLlib's name"), rows)


def make_evaluation() -> str:
    """Write the columns of an evaluation."""
    rows = ((f"`{q.name}`", q.unit, q.meaning + of_agents(q)) for q in EVALUATION)
    return write_table(("column", "unit", "meaning"), rows)


def make_study() -> str:
    """Write what reports say of a day besides the columns of an evaluation."""
    return write_table(("column", "unit", "meaning"), ((f"`{q.name}`", q.unit, q.meaning) for q in STUDY))


def make_recording() -> str:
    """Write what a recorded day holds besides the numbers of a step."""
    rows = ((q.owner, f"`{q.name}`", q.unit, describe_meaning(q)) for q in RECORDED)
    return write_table(("of each", "name", "unit", "meaning"), rows)


def of_agents(quantity: Quantity) -> str:
    """Say of a number of each agent that the column has one of all."""
    return "; summed over steps and agents" if quantity.owner == "agent" else ""


def make_import_column() -> str:
    """Write the keys of a column of a map of measurements."""
    fields = ((info.alias or name, info) for name, info in ColumnSpec.model_fields.items())
    rows = ((f"`{n}`", describe_type(f.annotation), describe_default(f), f.description or "") for n, f in fields)
    return write_table(("key", "value", "default", "meaning"), rows)


def make_import_map() -> str:
    """Write the keys of a map of measurements, but for its columns."""
    parts: dict[str, type[BaseModel]] = {"time": TimeSpec, "long": LongSpec, "gaps": GapRule, "outliers": OutlierRule}
    rows: list[tuple[str, str, str, str]] = []
    for name, info in ImportMap.model_fields.items():
        if name in parts:
            rows += list_keys(parts[name], f"{name}.")
        elif name != "columns":
            kind = describe_type(info.annotation)
            rows.append((f"`{name}`", kind, describe_default(info), info.description or ""))
    return write_table(("key", "value", "default", "meaning"), rows)


def make_classes() -> str:
    """Write what becomes of each class of the engine's schema."""
    return write_table(("class", "it is", "how, or why not", "but for"), classes_as_played())


def make_settings() -> str:
    """Write the settings of PPO, what each preset makes of them, and the older names."""
    presets = [name for name in PRESETS if name != "fast"]
    rows = []
    for name, field in TrainSettings.model_fields.items():
        own = [show_value(PRESETS[preset][name]) if name in PRESETS[preset] else "" for preset in presets]
        older = ", ".join(f"`{alias}`" for alias, meant in ALIASES.items() if meant == name)
        rows.append((f"`{name}`", show_value(field.default), *own, str(field.description), older))
    presets = [f"`{name}`" for name in presets]
    return write_table(("setting", "default", *presets, "meaning", "also accepted as"), rows)


def make_algorithm(algorithm: str) -> str:
    """Write what settings an algorithm has other than PPO's."""
    fields = ((name, SETTINGS[algorithm].model_fields[name]) for name in fields_of(algorithm))
    told = {name: (field.default, field.description) for name, field in TrainSettings.model_fields.items()}
    own = ((name, field) for name, field in fields if told.get(name) != (field.default, field.description))
    rows = ((f"`{name}`", show_value(field.default), str(field.description)) for name, field in own)
    return write_table(("setting", "default", "meaning"), rows)


def make_space(algorithm: str) -> str:
    """Write what the tuner draws an algorithm's settings from."""
    rows = ((f"`{name}`", describe_domain(domain)) for name, domain in SPACES[algorithm].items())
    return write_table(("setting", "drawn from"), rows)


def show_value(value: object) -> str:
    """Write a setting's value as YAML would have it."""
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)


PAGES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "devices.md": {kind: partial(make_device, kind) for kind in SPECS},
    "metrics.md": {
        "step": make_step,
        "training": make_training,
        "evaluation": make_evaluation,
        "study": make_study,
        "recording": make_recording,
    },
    "profiles.md": {"import_column": make_import_column, "import_map": make_import_map},
    "as_played.md": {"classes": make_classes},
    "training.md": {
        "settings": make_settings,
        **{f"space_{name}": partial(make_space, name) for name in ("ppo", "sac", "dqn")},  # that of mappo is ppo's
    },
    "algorithms.md": {name: partial(make_algorithm, name) for name in SETTINGS if name != "ppo"},
}


def main() -> int:
    """Write the pages, or with ``--check`` only tell whether they are in sync."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where a page is out of date")
    check, status = parser.parse_args().check, 0
    for name, sections in PAGES.items():
        old = (DOCS / name).read_text(encoding="utf-8")
        new = fill_page(old, sections)
        status |= int(check and new != old)
        if not check:
            (DOCS / name).write_text(new, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
