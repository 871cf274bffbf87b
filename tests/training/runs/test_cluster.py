"""Training on a cluster of two nodes: files that the second one lacks, its loss, and clusters that are not there."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from powergrid.errors import PowerGridError
from powergrid.grid.feeder.feeder import models_folder
from powergrid.training.runs.session import join_cluster
from tests.conftest import short_folder
from tests.training.conftest import rows_of
from tests.training.nodes import Nodes, free_port, ray_nodes

ROOT = Path(__file__).parents[3]
SETTINGS = {
    "num_env_runners": 2, "num_envs_per_env_runner": 2, "train_batch_size": 192, "minibatch_size": 96, "num_epochs": 1,
    "hidden": [8], "validate_every": 0, "sample_timeout_s": 60.0,
}  # fmt: skip
NODES = ("head", "second")
Arrived = Callable[[str], list[Path]]
SCENARIO = {
    "feeder": "net/Master.dss",
    "episode_length": 24,
    "devices": {"ess": {"kind": "storage", "bus": "675", "e_max_kwh": 100, "p_max_kw": 40}},
    "agents": {"A": {"devices": ["ess"], "zone": {"downstream_of": "671"}, "pcc": "671"}},
}


def plain_environment(short: str) -> dict[str, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": short, "PYTHONWARNINGS": "ignore"}
    env.pop("RAY_ADDRESS", None)
    return env


@pytest.fixture
def place(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment of a driver, with a home and a cache of its own."""
    with short_folder() as short:
        yield machine(plain_environment(short), tmp_path / "driver")


def machine(env: dict[str, str], folder: Path) -> dict[str, str]:
    """Return an environment like another machine's: its own home, cache and keys."""
    (folder / "home").mkdir(parents=True)
    return env | {
        "HOME": str(folder / "home"), "POWERGRID_CACHE": str(folder / "cache"), "POWERGRID_STATE": str(folder / "state")
    }  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Two nodes with a CPU each, so that the second of two env runners is on the second node.

    All tests share them, and the last takes the second away.
    """
    with short_folder() as short, ray_nodes(short) as nodes:
        for name in NODES:
            nodes.start(machine(plain_environment(short), Path(short) / name))
        yield nodes


@pytest.fixture
def arrived(cluster: Nodes) -> Arrived:
    """Return what tells which bundles have come to a node since the test began."""

    def find(node: str) -> set[Path]:
        return set((Path(cluster.folder) / node / "cache" / "bundles").glob("*"))

    before = {node: find(node) for node in NODES}
    return lambda node: sorted(find(node) - before[node])


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder of the driver's: scenario file, like none that nodes have seen before, and feeder."""
    folder = tmp_path / "model"
    shutil.copytree(models_folder() / "ieee13", folder / "net")
    (folder / "mine.yaml").write_text(yaml.safe_dump({**SCENARIO, "name": request.node.name}))
    return folder


@pytest.mark.slow
def test_second_node_without_the_files_samples_the_scenario_that_came_with_the_run(
    cluster: Nodes, place: dict[str, str], model: Path, arrived: Arrived, tmp_path: Path
) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "import shutil\n"
        "from powergrid.training import pack_env_config, train\n"
        f"config = pack_env_config({str(model / 'mine.yaml')!r})\n"
        f"shutil.rmtree({str(model)!r})\n"
        f"settings = {SETTINGS | {'iterations': 2}!r}\n"
        f"result = train(config, settings, address={cluster.address!r}, out_dir={str(tmp_path)!r}, name='run')\n"
        "print(result.stopped, result.iterations)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=place, capture_output=True, text=True, timeout=400
    )
    assert done.stdout.split() == ["finished", "2"], done.stdout + done.stderr[-6000:]
    assert [(row["env_runners"], row["env_steps"]) for row in rows_of(tmp_path / "run")] == [("2", "192"), ("2", "384")]
    for node in NODES:
        (bundle,) = arrived(node)
        assert (bundle / "0" / "model" / "net" / "Master.dss").is_file()
        assert not list((bundle.parents[2] / "home").rglob("*.dss"))
    assert cluster.alive() == 2  # the run took leave of the cluster and left it running


@pytest.mark.slow
def test_trials_on_both_nodes_end_up_as_runs_where_tuning_was_asked_for(
    cluster: Nodes, place: dict[str, str], model: Path, arrived: Arrived, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "num_env_runners": 0, "validate_every": 1, "validation_episodes": 1}
    script = tmp_path / "driver.py"
    script.write_text(
        "from pathlib import Path\n"
        "from powergrid.training import load_policy, resume, tune\n"
        f"result = tune({str(model / 'mine.yaml')!r}, {settings!r}, samples=2, iterations=2, search=['lr'],\n"
        f"              address={cluster.address!r}, out_dir={str(tmp_path)!r}, name='t')\n"
        "for trial in result.trials:\n"
        "    run = result.folder / trial.folder\n"
        "    print(trial.state, trial.iterations, *load_policy(run).policy_of)\n"
        "    print(resume(run, iterations=3).iterations)\n"  # signed by this user, so without --trust-checkpoint
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=place, capture_output=True, text=True, timeout=400
    )
    assert done.stdout.split() == ["finished", "2", "A", "3"] * 2, done.stdout + done.stderr[-6000:]
    runs = [tmp_path / "t" / f"trial_{number:03d}" for number in range(2)]
    manifests = [json.loads((run / "run.json").read_text()) for run in runs]
    assert manifests[0]["env_config"] == manifests[1]["env_config"] == {"env_name": str(model / "mine.yaml")}
    for node in NODES:  # a trial on each, with its files by content
        assert len(arrived(node)) == 1
    assert not list(Path(tempfile.gettempdir()).glob("pg-trial-*"))
    assert cluster.alive() == 2


@pytest.mark.slow
def test_loss_of_the_second_node_is_counted_and_training_goes_on(
    cluster: Nodes, place: dict[str, str], model: Path, arrived: Arrived, tmp_path: Path
) -> None:
    """Injected: SIGKILL of all processes of a node. Lost: what its runner had under way; no iteration fails."""
    settings = [f"--setting={name}={value}" for name, value in SETTINGS.items() if name != "num_env_runners"]
    command = [
        str(Path(sys.executable).parent / "powergrid"), "train", str(model / "net" / "Master.dss"), "--workers", "2",
        "--add-der", "0.3", "--set", "episode_length=24", "--iterations", "100000", "--address", cluster.address,
        "--out", str(tmp_path), "--name", "run", "--test-days", "0", *settings,
    ]  # fmt: skip
    run = tmp_path / "run"
    driver = subprocess.Popen(
        command, cwd=tmp_path, env=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    told: list[tuple[str, str]] = []
    reader = threading.Thread(target=lambda: told.append(driver.communicate()))
    reader.start()
    try:
        wait_for(lambda: len(rows_of(run)) >= 2, driver, told, 200)
        assert {row["env_runners"] for row in rows_of(run)} == {"2"}
        cluster.kill(1)
        wait_for(lambda: rows_of(run)[-1]["env_runner_losses"] == "1", driver, told, 100)
        lost = len(rows_of(run))
        wait_for(lambda: len(rows_of(run)) >= lost + 10, driver, told, 60)  # no waiting for a runner without a CPU
        driver.send_signal(signal.SIGINT)
        reader.join(100)
        assert driver.returncode == 0, told
    finally:
        driver.kill()
        reader.join(20)
    rows = rows_of(run)
    assert all(float(row["env_steps"]) > 0 and row["policy_loss"] for row in rows[lost:])
    assert {(row["env_runners"], row["env_runner_losses"], row["env_runner_restarts"]) for row in rows[lost:]} == {
        ("1", "1", "0")
    }
    steps = [int(row["env_steps"]) for row in rows]
    assert min(later - before for before, later in itertools.pairwise(steps)) >= 96
    output, errors = told[0]
    assert "A sampling process was lost in iteration" in " ".join(errors.split())
    assert "Interrupted after" in output
    (bundle,) = arrived("second")
    assert (bundle / "0" / "model" / "net" / "Master.dss").is_file()


def wait_for(condition, driver: subprocess.Popen[str], told: list[tuple[str, str]], most_s: float) -> None:
    deadline = time.monotonic() + most_s
    while not condition():
        assert driver.poll() is None, told
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.2)


def test_address_where_nothing_answers_says_so_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    nobody = free_port()
    start = time.monotonic()
    with pytest.raises(
        PowerGridError, match=rf"--address 127.0.0.1:{nobody}: no Ray cluster answers.*ray start --head"
    ):
        join_cluster(f"127.0.0.1:{nobody}")
    with socket.socket() as deaf:  # takes connections and says nothing
        deaf.bind(("", 0))
        deaf.listen()
        with pytest.raises(PowerGridError, match="no Ray cluster answers"):
            join_cluster(f"127.0.0.1:{deaf.getsockname()[1]}")
    assert time.monotonic() - start < 20
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{nobody}")
    with pytest.raises(PowerGridError, match="--address auto: no Ray cluster answers"):
        join_cluster("auto")


def test_address_that_is_none_says_what_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(PowerGridError, match="Ray Client cannot train"):
        join_cluster("ray://127.0.0.1:10001")
    with pytest.raises(PowerGridError, match="is not HOST:PORT"):
        join_cluster("nonsense")
