"""A Ray cluster of several nodes on this machine, each a raylet of its own with an environment of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ray._raylet import GcsClient

RAY = str(Path(sys.executable).parent / "ray")
SMALL = ["--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats", "--object-store-memory=100000000"]
START_S = 90.0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Nodes:
    """Nodes that ``ray start`` runs in the foreground; the first is the head."""

    def __init__(self, folder: str, port: int | None = None) -> None:
        self.folder, self.port = folder, port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, env: Mapping[str, str], cpus: int = 1, arguments: Sequence[str] | None = None) -> None:
        """Start a node and wait until the cluster knows it."""
        head = ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        own = arguments or ([f"--address={self.address}"] if self.processes else head)
        node = subprocess.Popen(
            [RAY, "start", *own, *SMALL, f"--num-cpus={cpus}"], env=dict(env), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.processes.append(node)
        wanted, deadline = len(self.processes), time.monotonic() + START_S
        while self.alive() < wanted:
            assert node.poll() is None, f"node {wanted} ended with {node.returncode}"
            assert time.monotonic() < deadline, f"node {wanted} did not come up"
            time.sleep(0.3)

    def alive(self) -> int:
        """Count the nodes that the head takes for alive."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2):
                pass
            infos = GcsClient(address=self.address).get_all_node_info(timeout=10)
        except Exception:  # noqa: BLE001 (not up yet: Ray says so in several ways)
            return 0
        return sum(info.state == 0 for info in infos.values())

    def kill(self, place: int) -> None:
        """Take a node away as a power cut does: it says goodbye to nobody."""
        node = self.processes[place]
        os.killpg(node.pid, signal.SIGKILL)
        node.wait(20)

    def stop(self) -> None:
        """End all that is left as a power cut does: told to end, nodes that are busy would take their time."""
        for place, node in enumerate(self.processes):
            if node.poll() is None:
                self.kill(place)


@contextmanager
def ray_nodes(folder: str, port: int | None = None) -> Iterator[Nodes]:
    """Return a cluster without nodes, and end those it has at the end."""
    nodes = Nodes(folder, port)
    try:
        yield nodes
    finally:
        nodes.stop()
