"""What every test shares: a quiet, offline Ray, fixed hypothesis profiles and a check for left-over processes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Before anything imports Ray, torch or matplotlib: they read these once.
os.environ.update(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        # Feeders of tests are the project's own: a trial of each would be half a second a test.
        "POWERGRID_TRIAL_S": "0",
    }
)

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Ray's socket names add up to 65 characters to its folder, and a socket's path may have 107.
RAY_FOLDER_LIMIT = 42


@pytest.fixture(scope="session", autouse=True)
def own_folders() -> Iterator[None]:
    """Keep what feeders compile to, and the key that signs checkpoints, in folders of this run, not in the user's."""
    with tempfile.TemporaryDirectory(prefix="powergrid-tests-") as folder:
        for name in ("POWERGRID_CACHE", "POWERGRID_STATE"):
            os.environ[name] = str(Path(folder) / name)
        yield
        for name in ("POWERGRID_CACHE", "POWERGRID_STATE"):
            del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail the run if a test leaves a process behind, daemons included: they inherit the mark."""
    mark = f"POWERGRID_TESTS={uuid.uuid4().hex}"
    name, value = mark.split("=")
    os.environ[name] = value
    yield
    del os.environ[name]
    deadline = time.monotonic() + 20
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"the tests left processes behind: {left}"


def marked_processes(mark: str) -> dict[int, str]:
    """Find the living processes that started with the mark in their environment; needs /proc."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # ended meanwhile, or another user's
            continue
        if "multiprocessing.resource_tracker" not in command:  # ends with this process
            found[int(folder.name)] = command[:200]
    return found


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Start one local Ray with two CPUs for all tests that need it; end it and remove its files."""
    import logging

    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the demonstration environment that Tune's registry imports casts its bounds
        import ray.rllib.algorithms.dreamerv3

    with short_folder() as folder:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=200 * 1024**2,
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """Make a folder for the Ray of a process that a test starts, its TMPDIR; all in it goes in the end."""
    with short_folder() as folder:
        yield folder
        # Workers end by themselves once Ray has, which takes a while on a machine that is busy.
        deadline = time.monotonic() + 60
        while (left := marked_processes(f"TMPDIR={folder}")) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left, f"Ray left processes behind: {left}"


@contextmanager
def short_folder() -> Iterator[str]:
    """Yield a folder whose name is short enough for Ray's sockets; it goes when the block ends."""
    parent = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="ray.", dir=parent if len(parent) <= RAY_FOLDER_LIMIT - 13 else "/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
