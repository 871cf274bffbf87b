"""What the reader understood is what the engine understands, and nothing outside the root is opened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from powergrid.grid.engine import Engine, property_kinds
from powergrid.grid.feeder.reading.defined import Defined
from tests.grid.feeder.probes import option_probes, property_probes

ROOT = Path(__file__).parents[3]
#: Every so-manieth probe is tried here; all of them take two minutes.
STEP = 6


def test_probes_are_of_every_property_and_option() -> None:
    probes = [*property_probes("/s"), *option_probes("/s")]
    assert len(probes) > 12_000
    text = "\n".join(probe.text for probe in probes)
    for class_name, kinds in property_kinds().items():
        assert f"New {class_name}.x" in text
        assert sum(f" {name}=a=/s" in text for name in kinds) >= len(kinds) - 7


def test_probe_is_refused_or_means_the_same_to_the_engine(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.csv").write_text("1\n2\n")
    code = f"from tests.grid.feeder.probes import main; main({str(tmp_path)!r}, '0', '{STEP}')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert done.returncode == 0, rows[-1:]
    verdicts = [(text, verdict) for text, verdict in rows if verdict]
    counts = Counter(verdict for _, verdict in verdicts)
    assert [each for each in verdicts if each[1] not in ("refused", "equal", "apart")] == []
    assert counts.total() >= 2_000
    assert counts["equal"] > 500
    assert counts["refused"] > 1_000
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["Master.dss", "model", "outside", "secret.csv"]


def test_what_is_there_before_a_feeder_says_anything_is_what_the_engine_has() -> None:
    engine, defined = Engine(), Defined()
    engine.command("New Circuit.c")
    for class_name in property_kinds():
        engine.direct.Basic.SetActiveClass(class_name)
        assert defined.names(class_name) == list(engine.direct.ActiveClass.AllNames() or ()), class_name
    engine.close()
