from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.running import run_command


@pytest.fixture(scope="session")
def sample_run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train one iteration, for pages that speak of a run they do not make."""
    out = tmp_path_factory.mktemp("sample")
    run_command(["powergrid", "train", "ieee13_mg", "--name", "sample", "--out", str(out)])
    return out / "sample"
