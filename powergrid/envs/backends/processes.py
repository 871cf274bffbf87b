"""Processes that each play a slice of the environments in shared memory, the caller's own among them."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import signal
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from gymnasium.vector import AutoresetMode

from powergrid.envs.backends.board import Board, Layout, ViewName
from powergrid.envs.backends.feeders import FeederSlice
from powergrid.envs.backends.lockstep import Backend, BackendName, Inline, split_envs
from powergrid.envs.backends.slices import Slice, call_slice
from powergrid.errors import EngineError
from powergrid.scenario import Scenario

_STEP, _STEP_AND_INFOS, _QUIT, _DONE = b"s", b"i", b"q", b""
_PATIENCE_S = 5.0  # a worker that does not end by then is killed: a close must not hang on a solve that does
_WATCH_S = 0.002
#: How long a worker may take for what this process did meanwhile, where nothing is said: this time, or so many times as
#: long. A slow feeder is slow here too, and what is slow for both is no worker that hangs.
LONGEST_S, LONGEST_TIMES = 300.0, 100.0


class Processes(Backend):
    """Play the first slice here and each other one in a process of its own; all lies in memory that they share.

    The caller would only wait for the others, and be woken late; so it plays too. A worker never outlives this
    process: it ends when its pipe does. The memory has no name that could be left over.

    Args:
        scenario: The scenario; wrong ones show here, before any worker starts.
        view: What is seen.
        n_envs: Number of environments.
        autoreset: When an environment that is over starts anew.
        n_processes: Number of processes, this one among them.
        worker_index: Tells apart the streams of several workers, as RLlib numbers them.
        timeout_s: Longest wait for what a worker plays [s]; None for :data:`LONGEST_S`, or longer where this process's
            own part took long. To be built it always has that long.
    """

    def __init__(
        self,
        scenario: Scenario,
        view: ViewName,
        n_envs: int,
        *,
        autoreset: AutoresetMode,
        n_processes: int,
        worker_index: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        # A fresh interpreter: a forked one would inherit engines and locks in whatever state they are.
        context = multiprocessing.get_context("spawn")
        bounds = split_envs(n_envs, n_processes)
        began = time.monotonic()
        kind = _kind_of(scenario)
        tasks = kind.build(scenario, bounds[0][1])
        took_s = time.monotonic() - began
        layout = kind.lay_out(tasks, view, n_envs, autoreset=autoreset, worker_index=worker_index)
        memory, bells = context.RawArray("B", Board.n_bytes(layout)), context.RawArray("q", 2 * n_processes)
        self._asked, self._answered = _open_bells(bells)
        self._heard = [0] * n_processes
        self._patience_s = _find_patience(n_processes)
        self._timeout_s: float | None = None
        super().__init__(scenario, layout, Board(layout, memory), bounds)
        self._own = kind(tasks, layout, view, self.board.rows(*bounds[0]))
        self._pipes: list[Connection] = []
        self._workers: list[Any] = []
        self._shut = weakref.finalize(self, _shut_down, self._own, self._pipes, self._workers)
        try:
            for place in bounds[1:]:
                ours, theirs = context.Pipe()
                line = _Line(theirs, bells, len(self._pipes) + 1, self._patience_s)
                job = (line, scenario, view, layout, memory, place)
                worker = context.Process(target=_work, args=job, name=f"powergrid-{place[0]}", daemon=True)
                self._pipes.append(ours)
                worker.start()
                self._workers.append(worker)
                theirs.close()
            self._collect(list(range(1, n_processes)), took_s)
            self._timeout_s = timeout_s
        except _PlayedError as failed:
            self._release()
            raise failed.cause from None
        except BaseException:
            self._release()
            raise

    def _step(self, *, infos: bool) -> None:
        token = _STEP_AND_INFOS if infos else _STEP
        self._exchange(dict.fromkeys(range(1, len(self.bounds)), token), functools.partial(_step, self._own, infos))

    def _call(self, calls: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        messages = {i: pickle.dumps(call) for i, call in enumerate(calls) if i and call is not None}
        return self._exchange(messages, functools.partial(call_slice, self._own, calls[0]))

    def _exchange(self, messages: Mapping[int, bytes], play_own: Callable[[], Any]) -> list[Any]:
        """Send messages to workers, play the slice here, and wait for all; whatever breaks that off ends the workers.

        Args:
            messages: What each worker gets.
            play_own: Does the same in this process, and returns its answer.
        """
        if not self._shut.alive:
            raise EngineError("the worker processes have ended; build the environment anew")
        try:
            for i, message in messages.items():
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # told below, where it is missed
                    self._pipes[i - 1].send_bytes(message)
                self._asked[i] += 1
            failed: Exception | None = None
            own = None
            began = time.monotonic()
            try:
                own = play_own()
            except Exception as error:  # noqa: BLE001 (raised once the others have answered)
                failed = error
            answers = self._collect(list(messages), time.monotonic() - began)
            if failed is not None:
                raise _PlayedError(failed)
            answers[0] = own
            return answers
        except _PlayedError as played:
            raise played.cause from None
        except BaseException:
            self._release()
            raise

    def _collect(self, asked: Sequence[int], took_s: float) -> list[Any]:
        """Wait for the answers of some workers, None for the others; ``took_s`` is what this process needed itself.

        Raises:
            _PlayedError: a worker raised; with what the first of them did, all having answered.
            EngineError: a worker died, or does not answer.
        """
        longest_s = self._timeout_s or max(LONGEST_S, LONGEST_TIMES * took_s)
        answers: list[Any] = [None] * len(self.bounds)
        raised = []
        for i in asked:
            try:
                _listen(self._answered, i, self._heard[i], self._patience_s)
                # Where its bell rang it has answered; to ask the pipe costs what a small step does.
                if self._answered[i] == self._heard[i] and not self._pipes[i - 1].poll(longest_s):
                    self._workers[i - 1].kill()
                    raise EngineError(self._describe_silence(i, longest_s))
                answer = self._pipes[i - 1].recv_bytes()
                self._heard[i] = self._answered[i]
            except (EOFError, ConnectionResetError):
                raise EngineError(self._describe_death(i)) from None
            if answer != _DONE:
                sound, answers[i] = pickle.loads(answer)
                if not sound:
                    raised.append(answers[i])
        if raised:
            raise _PlayedError(raised[0])
        return answers

    def _describe_death(self, i: int) -> str:
        first, last = self.bounds[i]
        worker = self._workers[i - 1]
        worker.join(_PATIENCE_S)
        code = worker.exitcode
        hint = "" if code != 1 else "; a script that starts it needs the guard: if __name__ == '__main__'"
        return (
            f"worker process {i} with environments {first}..{last - 1} ended with exit code {code}{hint}; "
            "all others were ended as well: build the environment anew"
        )

    def _describe_silence(self, i: int, longest_s: float) -> str:
        first, last = self.bounds[i]
        return (
            f"worker process {i} with environments {first}..{last - 1} gave no answer within {longest_s:g} s and was "
            "killed; all others were ended as well: build the environment anew, with a longer timeout_s where a step "
            "takes that long"
        )

    def _release(self) -> None:
        """End the workers; each process releases its engines."""
        self._shut()


def _count_workers(workers: int | None, n_envs: int) -> int:
    """Return the number of processes: as asked, or one for each processor, never more than environments."""
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(workers, n_envs))


def _kind_of(scenario: Scenario) -> type[Slice]:
    """Return what plays environments of a scenario."""
    return FeederSlice if scenario.feeders else Slice


def open_backend(
    name: BackendName,
    scenario: Scenario,
    view: ViewName,
    n_envs: int,
    *,
    autoreset: AutoresetMode,
    workers: int | None,
    worker_index: int | None = None,
    timeout_s: float | None = None,
) -> Backend:
    """Build the environments on a backend."""
    if name == "inline":
        kind = _kind_of(scenario)
        return Inline(scenario, view, n_envs, kind=kind, autoreset=autoreset, worker_index=worker_index)
    n_processes = _count_workers(workers, n_envs)
    how: dict[str, Any] = {"autoreset": autoreset, "worker_index": worker_index, "timeout_s": timeout_s}
    return Processes(scenario, view, n_envs, n_processes=n_processes, **how)


class _PlayedError(Exception):
    """Carry what a worker raised while it goes on living."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


def _shut_down(own: Slice, pipes: list[Connection], workers: list[Any]) -> None:
    own.close()
    for pipe in pipes:
        with contextlib.suppress(OSError):
            pipe.send_bytes(_QUIT)
        pipe.close()
    for worker in workers:
        worker.join(_PATIENCE_S)
        if worker.exitcode is None:
            worker.kill()
            worker.join()
        worker.close()


class _Line:
    """A worker's end of the way between it and its caller: a pipe, and a bell for each direction.

    Whoever waits watches the other's bell for a moment before it sleeps in the pipe: a process that sleeps is woken
    after 20 to 130 µs, and maybe on the processor that its caller goes on to use.
    """

    def __init__(self, pipe: Connection, bells: Any, place: int, patience_s: float) -> None:
        self._pipe, self._bells, self._place, self._patience_s = pipe, bells, place, patience_s
        self._heard = 0

    def ask(self) -> bytes:
        """Wait for what the caller wants."""
        asked, _ = _open_bells(self._bells)
        _listen(asked, self._place, self._heard, self._patience_s)
        message = self._pipe.recv_bytes()
        self._heard = asked[self._place]
        return message

    def answer(self, answer: bytes) -> None:
        """Return the caller what came of it."""
        self._pipe.send_bytes(answer)
        _, answered = _open_bells(self._bells)
        answered[self._place] += 1


def _open_bells(bells: Any) -> tuple[memoryview, memoryview]:
    """Return the counters of what was asked of each process and of what each has answered; each has one writer."""
    counters = memoryview(bells).cast("B").cast("q")
    half = len(counters) // 2
    return counters[:half], counters[half:]


def _listen(counters: memoryview, place: int, heard: int, patience_s: float) -> None:
    """Watch a counter until it moves, for a time; a hint alone: the pipe says what was sent and when."""
    clock = time.perf_counter
    until = clock() + patience_s
    while counters[place] == heard and clock() < until:
        os.sched_yield()


def _find_patience(n_processes: int) -> float:
    """Say how long to watch: not at all where processes would take each other's processor [s]."""
    if not hasattr(os, "sched_yield") or not hasattr(os, "sched_getaffinity"):
        return 0.0
    return _WATCH_S if n_processes <= len(os.sched_getaffinity(0)) else 0.0


def _work(line: _Line, scenario: Scenario, view: ViewName, layout: Layout, memory: Any, place: tuple[int, int]) -> None:
    """Be a worker: build a slice and do what is asked until there is nobody left to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the caller's to handle; it ends this by the pipe
    with contextlib.suppress(EOFError, OSError):
        try:
            kind = _kind_of(scenario)
            tasks = kind.build(scenario, place[1] - place[0])
            part = kind(tasks, layout, view, Board(layout, memory).rows(*place), place[0])
        except Exception as error:  # noqa: BLE001 (the caller gets it)
            line.answer(_pack_error(error))
            return
        line.answer(_DONE)
        try:
            while (message := line.ask()) != _QUIT:
                line.answer(_answer(part, message))
        finally:
            part.close()


def _step(part: Slice, infos: bool) -> None:
    part.step()
    if infos:
        part.infos()


def _answer(part: Slice, message: bytes) -> bytes:
    try:
        if message in (_STEP, _STEP_AND_INFOS):
            _step(part, message == _STEP_AND_INFOS)
            return _DONE
        answer = call_slice(part, pickle.loads(message))
        return _DONE if answer is None else pickle.dumps((True, answer))
    except Exception as error:  # noqa: BLE001 (the caller gets it)
        return _pack_error(error)


def _pack_error(error: Exception) -> bytes:
    """Pickle an error with where it was raised, or its type and message where it does not pickle."""
    error.add_note("".join(["in a worker process:\n", *traceback.format_exception(error)]))
    try:
        packed = pickle.dumps((False, error))
        pickle.loads(packed)
        return packed
    except Exception:  # noqa: BLE001 (pickle and classes raise anything)
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
