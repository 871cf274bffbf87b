"""The package as a whole: light to import, one version, nothing of the machine that it was written on."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import pytest
import yaml

import powergrid

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("ray", "torch", "pandas", "opendssdirect", "dss_python_backend", "matplotlib")


def test_import_of_the_package_leaves_heavy_libraries_alone() -> None:
    code = f"import sys, powergrid; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stdout.split() == []


def test_version_of_the_distribution_is_that_of_the_package() -> None:
    try:
        installed = importlib.metadata.version("powergrid-dss")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("PowerGrid is not installed here")
    assert installed == powergrid.__version__


def test_citation_is_of_this_version_and_has_what_the_format_asks_for() -> None:
    """Keys that the Citation File Format 1.2.0 requires, and the forms of those that are there."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert cited["version"] == powergrid.__version__
    assert cited["authors"]
    assert all({"name"} <= set(author) or {"family-names", "given-names"} <= set(author) for author in cited["authors"])
    assert date.fromisoformat(cited["date-released"]).isoformat() == cited["date-released"]  # a text, not a date
    assert len(set(cited["keywords"])) == len(cited["keywords"])
    with (ROOT / "pyproject.toml").open(encoding="utf-8") as file:
        assert f'license = "{cited["license"]}"\n' in file.read()


def test_tracked_files_name_no_path_of_this_machine() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=60, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    # A checkout may lie directly in a folder that any text may name, such as the one for temporary files.
    everywhere = {Path("/"), Path("/tmp"), Path("/home"), Path("/opt"), Path("/usr"), Path(tempfile.gettempdir())}
    folders = {ROOT, ROOT.parent, Path(sys.prefix), Path.home()} - everywhere
    needles = [f"{folder}/".encode() for folder in folders]
    files = [ROOT / name.decode() for name in listing.stdout.split(b"\0") if name]
    assert files
    texts = {path: path.read_bytes() for path in files if path.is_file()}
    found = [f"{path.relative_to(ROOT)}: {n.decode()}" for path, text in texts.items() for n in needles if n in text]
    assert found == []
