"""The tables of devices and metrics are those of the code, and name what a real run writes."""

from __future__ import annotations

import csv
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from tensorboardX.proto import event_pb2

from powergrid.grid.devices import SPECS
from powergrid.grid.engine import property_tables
from powergrid.quantities import TRAINING

ROOT = Path(__file__).parents[2]
AGENTS, POLICIES = ("MG1", "MG2"), ("grid_policy",)
ONLY_OFF_POLICY = {"qf_loss", "qf_mean", "alpha"}
#: Those of a training with limited costs, which its own tests read.
ONLY_LIMITED = {"episode_cost/<cost>", "multiplier/<cost>"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        return importlib.import_module("make_reference_pages")


PAGES = ["devices.md", "metrics.md", "profiles.md", "as_played.md", "training.md", "algorithms.md"]


@pytest.mark.parametrize("page", PAGES)
def test_page_tables_are_in_sync_with_the_code(page: str, script: ModuleType) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert script.fill_page(text, script.PAGES[page]) == text, "run scripts/make_reference_pages.py"


def test_page_of_what_is_played_has_every_class_of_the_engine(script: ModuleType) -> None:
    table = script.make_classes()  # which knows of no class or property that the engine lacks
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(property_tables())


def test_every_key_of_a_device_has_a_meaning(script: ModuleType) -> None:
    for kind, spec in SPECS.items():
        table = script.make_device(kind)
        assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(spec.model_fields) - {"kind"}
        assert all(row.rstrip(" |")[-1] in ".)" for row in table.splitlines()[2:]), kind


def tags_of(run: Path) -> set[str]:
    """Read the names in a run's TensorBoard files."""
    tags: set[str] = set()
    for file in run.glob("events.out.tfevents.*"):
        raw, at = file.read_bytes(), 0
        while at < len(raw):
            length = int.from_bytes(raw[at : at + 8], "little")
            event = event_pb2.Event.FromString(raw[at + 12 : at + 12 + length])
            tags |= {value.tag for value in event.summary.value}
            at += 16 + length
    return tags


def as_pattern(name: str) -> str:
    """Turn ``custom/<agent>/<name>`` into a pattern of what a run may call it."""
    pattern = re.escape(name)
    for word, meant in {"agent": "|".join(AGENTS), "policy": "|".join(POLICIES), "name": r"\w+"}.items():
        pattern = pattern.replace(f"<{word}>", f"({meant})")
    return pattern


@pytest.mark.slow
def test_names_of_the_page_are_those_of_a_real_run(sample_run: Path) -> None:
    tags = tags_of(sample_run)
    ours = {tag for tag in tags if not tag.startswith("ray/")}
    with (sample_run / "progress.csv").open(newline="") as stream:
        columns = set(next(csv.reader(stream)))
    told = {q.name for q in TRAINING if q.name not in ONLY_OFF_POLICY | ONLY_LIMITED | {"<policy>/<name>"}}
    for name in told:
        assert any(re.fullmatch(as_pattern(name), column) for column in columns), name
        # what was no number yet, such as a return before the first episode is over, has no tag
        if name != "iteration" and not name.startswith(("episode_", "agent_return", "custom/")):
            assert any(re.fullmatch(as_pattern(name), tag) for tag in ours), name
    for found in columns | ours:
        assert any(re.fullmatch(as_pattern(name), found) for name in told), f"{found} is on no page"


@pytest.mark.slow
def test_names_of_the_training_page_are_those_of_a_real_run(sample_run: Path) -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    section = page.split("## Monitoring training")[1].split("### Custom metrics")[0]
    with (sample_run / "progress.csv").open(newline="") as stream:
        columns = set(next(csv.reader(stream)))
    key = re.findall(r"^- `(\w+)`", section, re.MULTILINE)
    assert key == ["episode_reward_mean", "policy_loss", "vf_loss", "entropy"]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    whole = {"_min": "episode_return_min", "_max": "episode_return_max", "validation/...": "validation/<name>"}
    for name in [*key, *(whole.get(name, name) for name in names)]:
        assert any(re.fullmatch(as_pattern(name), column) for column in columns), name
    files = page.split("## What a run leaves")[1].split("## Monitoring")[0]
    for name in re.findall(r"^\| `([^`]+)`", files, re.MULTILINE):
        found = re.sub(r"iteration_\d+", "iteration_*", name).rstrip("/")
        assert list(sample_run.glob(found)), name
