"""Join a Ray cluster that somebody else started; it starts and stops none, and does not wait for one that is not."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

from powergrid.errors import PowerGridError

ANSWER_WITHIN_S = 5.0
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings
_HTTP2_SETTINGS = 4
_START = "start one with `ray start --head` and each other machine with `ray start --address=<head's address>`"


def join_cluster(address: str, *, verbose: bool = False) -> str:
    """Connect this process to a running cluster; ``ray.shutdown()`` takes leave of it and leaves it running.

    Args:
        address: ``HOST:PORT`` of its head, or ``auto`` for ``RAY_ADDRESS`` or a Ray that runs on this machine.
        verbose: Show what workers print.

    Returns:
        The address.

    Raises:
        PowerGridError: No cluster answers there, within seconds, or it does not take this process.
    """
    import ray

    if ray.is_initialized():
        joined = str(ray.get_runtime_context().gcs_address)
        if address != "auto" and _resolve(address) != joined:
            raise PowerGridError(f"--address {address}: this process is connected to the Ray at {joined} already")
        return joined
    found = _resolve(address)
    if not _answers(found):
        raise PowerGridError(f"--address {address}: no Ray cluster answers at {found}; {_START}")
    try:
        ray.init(
            address=found, log_to_driver=verbose, logging_level=logging.INFO if verbose else logging.ERROR
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        told = " ".join(str(error).split())
        raise PowerGridError(
            f"--address {address}: the Ray cluster at {found} does not take this process. This machine must be one of "
            f"its nodes (`ray start --address={found}`), with the same versions of Ray and Python, and where it "
            f"asks for a token RAY_AUTH_MODE=token and that. Ray says: {told}"
        ) from error
    return found


def logs_of_this_job() -> tuple[Path, str]:
    """Return the folder of this node's Ray logs, and the pattern of the names of this job's workers."""
    import ray
    from ray._private import worker as internals

    worker: Any = internals.global_worker
    return Path(worker.node.get_logs_dir_path()), f"worker-*-{ray.get_runtime_context().get_job_id()}-*.err"


def _resolve(address: str) -> str:
    """Turn what was asked for into ``HOST:PORT``."""
    from ray._private import services

    if "://" in address:
        wanted = f"--address {address}: give HOST:PORT as `ray start --head` prints it; Ray Client cannot train"
        raise PowerGridError(wanted)
    try:
        return str(services.canonicalize_bootstrap_address_or_die(address))
    except ConnectionError as error:
        several = "; give the address of one" if "multiple" in str(error) else f"; {_START}"
        told = str(error).split(". ")[0].rstrip(".")
        raise PowerGridError(f"--address {address}: {told}{several}") from error
    except (ValueError, OSError) as error:
        raise PowerGridError(f"--address {address}: is not HOST:PORT of a machine that is known: {error}") from error


def _answers(address: str) -> bool:
    """Whether something speaks gRPC there. Ray itself tries for a minute and longer, and then ends the process."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN_S) as stream:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return True
            stream.sendall(_HTTP2_HELLO)
            frame = stream.recv(9)
            return len(frame) > 3 and frame[3] == _HTTP2_SETTINGS
    except (OSError, ValueError):
        return False
