"""A Ray to train on: started quietly and ended without a trace, or a cluster joined; it says why a worker died."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from powergrid.errors import PowerGridError
from powergrid.files import reason_of, telling

LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # else Ray writes a token to the home directory and warns about it
    "RAY_USAGE_STATS_ENABLED": "0",
}
QUIET_ENVIRONMENT = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
LONGEST_TEMP_DIR = 30  # Ray puts sockets below it, and the kernel cuts a socket's path at 107 characters
# Asked before Ray is: it tries for a minute and longer where nobody answers, and then ends the process.
ANSWER_WITHIN_S = 5.0
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings
_HTTP2_SETTINGS = 4
_START = "start one with `ray start --head` and each other machine with `ray start --address=<head's address>`"


@dataclass
class RaySession:
    """Know where Ray keeps its workers' logs and what it would have printed."""

    temp_dir: Path | None  # where a Ray started for this run keeps its files
    joined: str = ""  # the address of a cluster
    held_back: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=20))

    @property
    def shared(self) -> bool:
        """Whether the Ray was not started for this run: it may have machines without our files."""
        return self.temp_dir is None

    def explain(self) -> str:
        """Return the newest traceback of a worker, or the last error Ray reported; empty where there is none."""
        return self.newest_traceback() or (self.held_back[-1] if self.held_back else "")

    def newest_traceback(self, since_s: float = 0.0) -> str:
        """Return the newest traceback that a worker has left, since a time of the system's clock."""
        # RLlib's own error is often empty, or says only that an actor died: the cause is in the worker's log alone.
        logs = [log for log in self._worker_logs() if log.stat().st_size and log.stat().st_mtime >= since_s]
        for log in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True):
            told = _root_traceback(log.read_text(errors="replace"))
            if told:
                return told
        return ""

    def _worker_logs(self) -> Iterable[Path]:
        if self.temp_dir is not None:
            return self.temp_dir.glob("session_2*/logs/worker-*.err")
        if not self.joined:
            return ()
        import ray

        # The context of the connection there is: it alone says, by a documented name, where this node's logs are.
        context: Any = ray.init(ignore_reinit_error=True, log_to_driver=False)
        job = ray.get_runtime_context().get_job_id()
        return (Path(context.address_info["session_dir"]) / "logs").glob(f"worker-*-{job}-*.err")


def _root_traceback(text: str) -> str:
    """Return the newest chain of tracebacks' first one, the cause; empty where there is none."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    if not starts:
        return ""
    first = len(starts) - 1
    while first and any(line.strip() in _CHAINED for line in lines[starts[first - 1] : starts[first]]):
        first -= 1
    end = starts[first + 1] if first + 1 < len(starts) else len(lines)
    shown = [line for line in lines[starts[first] : end] if line.strip() and line.strip() not in _CHAINED]
    return "\n".join(shown[:60])


_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


def _start_ray(stack: contextlib.ExitStack, quiet: contextlib.AbstractContextManager[None], verbose: bool) -> Path:
    """Start a local Ray until the stack ends; return the folder of its files, which goes then."""
    import ray

    parent = tempfile.gettempdir()
    if len(parent) > LONGEST_TEMP_DIR and os.path.isdir("/tmp"):
        parent = "/tmp"
    with telling(parent):
        folder = tempfile.TemporaryDirectory(prefix="pg-ray-", dir=parent, ignore_cleanup_errors=True)
    place = stack.enter_context(folder)
    stack.callback(ray.shutdown)
    # Workers inherit PYTHONPATH when Ray starts: they are to import what this process can.
    importable = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(os.path.abspath(entry) for entry in sys.path))}
    with environment_variables(importable), quiet:
        # RLlib would start a Ray of its own, with a dashboard, even for an algorithm without other processes.
        try:
            ray.init(address="local", include_dashboard=False, _temp_dir=place, **_printing(verbose))
        except (OSError, RuntimeError, TimeoutError, ValueError, ray.exceptions.RayError) as error:
            raise PowerGridError(f"Ray could not start, with its files in {place}: {reason_of(error)}") from error
    return Path(place)


@contextlib.contextmanager
def ray_session(*, verbose: bool = False, address: str | None = None) -> Iterator[RaySession]:
    """Start a local Ray for the block and stop it after; use the one that this process has, if it has one.

    Args:
        verbose: Show all that Ray, its workers and the libraries print.
        address: Join the cluster there instead, and leave it running; see :func:`join_cluster`.

    Raises:
        PowerGridError: There is no cluster at the address.
    """
    local = LOCAL_ENVIRONMENT if address is None else {}  # a cluster says itself whether it wants a token
    for name, value in {**local, **({} if verbose else QUIET_ENVIRONMENT)}.items():
        os.environ.setdefault(name, value)
    with contextlib.ExitStack() as stack:
        if not verbose:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        import ray
        import ray.rllib  # gives its loggers their handlers on import
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # two threads beside a busy neighbour made small updates 60 times slower
        stack.callback(torch.set_num_threads, threads)
        session = RaySession(None)
        quiet = contextlib.nullcontext() if verbose else _no_stderr()
        if not verbose:
            stack.enter_context(_hold_back(session.held_back))
        if address is not None:
            if not ray.is_initialized():
                stack.callback(ray.shutdown)
            with quiet:
                session.joined = join_cluster(address, verbose=verbose)
        elif not ray.is_initialized():
            session.temp_dir = _start_ray(stack, quiet, verbose)
        yield session


def _printing(verbose: bool) -> dict[str, Any]:
    return {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}


class _Keep(logging.Handler):
    """Keep the text of errors instead of printing them."""

    def __init__(self, kept: collections.deque[str]) -> None:
        super().__init__(logging.ERROR)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(self.format(record))


@contextlib.contextmanager
def _hold_back(kept: collections.deque[str]) -> Iterator[None]:
    """Send what Ray's loggers would print to a list; what a user can act on is told from there."""
    # Each of Ray's libraries gives a logger of its own a handler, and does not pass on to Ray's.
    loggers = [logging.getLogger(name) for name in logging.Logger.manager.loggerDict if name.split(".")[0] == "ray"]
    before = [(each, each.handlers[:], each.propagate) for each in loggers]
    keep = _Keep(kept)
    for each in loggers:
        each.handlers[:], each.propagate = [keep], False
    try:
        yield
    finally:
        for each, handlers, propagate in before:
            each.handlers[:], each.propagate = handlers, propagate


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what Ray's C++ core writes to the error stream while it starts; exceptions still come through."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def environment_variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block; Ray and Tune read most of their options from there alone."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def join_cluster(address: str, *, verbose: bool = False) -> str:
    """Connect this process to a running cluster; ``ray.shutdown()`` takes leave of it and leaves it running.

    ``auto`` is ``RAY_ADDRESS``, or a Ray that runs on this machine; what comes back is the address found.

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
        ray.init(address=found, **_printing(verbose))
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        told = " ".join(str(error).split())
        raise PowerGridError(
            f"--address {address}: the Ray cluster at {found} does not take this process. This machine must be one of "
            f"its nodes (`ray start --address={found}`), with the same versions of Ray and Python, and where it "
            f"asks for a token RAY_AUTH_MODE=token and that. Ray says: {told}"
        ) from error
    return found


def _resolve(address: str) -> str:
    """Turn what was asked for into ``HOST:PORT``."""
    from ray._private import services  # private: ray.init alone resolves `auto`, and waits for a Ray that died

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
    """Whether something speaks gRPC there, within seconds."""
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


def build_algorithm(config: Any, session: RaySession) -> Any:
    """Build the algorithm without the empty folder that RLlib makes under ``~/ray_results``.

    Raises:
        PowerGridError: RLlib cannot start; with the traceback of the worker that failed.
    """
    from ray.tune.trainable import trainable as their_module

    # RLlib's result logger takes its folder from this name; no argument of the configuration says where, or whether.
    trainable: Any = their_module
    elsewhere = trainable.DEFAULT_STORAGE_PATH
    with tempfile.TemporaryDirectory(prefix="pg-") as unused:
        trainable.DEFAULT_STORAGE_PATH = unused
        try:
            return config.build_algo()
        except Exception as error:
            why = session.explain() or f"{type(error).__name__}: {error}"
            raise PowerGridError(f"RLlib could not start; the cause:\n{why}") from error
        finally:
            trainable.DEFAULT_STORAGE_PATH = elsewhere


def stop_algorithm(algorithm: Any) -> None:
    """Stop the algorithm; give up waiting where a worker hangs."""
    if not algorithm.config.num_env_runners:
        algorithm.stop()  # OpenDSS crashes where an engine is closed by another thread than this
        return
    # Where an environment hangs, RLlib had not stopped after five minutes; Ray's own shutdown kills the worker.
    stopper = threading.Thread(target=algorithm.stop, daemon=True)
    stopper.start()
    stopper.join(20.0)
