"""Workers that each own a slice of the environments: processes that share memory with their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import traceback
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from powergrid.envs.backends import Backend
from powergrid.envs.slices import Board, Layout, Slice, ViewName
from powergrid.envs.task import GridTask
from powergrid.errors import EngineError
from powergrid.scenario import Scenario

_STEP, _STEP_AND_INFOS, _QUIT, _DONE = b"s", b"i", b"q", b""
_PATIENCE_S = 5.0


class Processes(Backend):
    """Play each slice in a process of its own; actions and all that is seen lie in memory that both map.

    A worker never outlives this process: it ends when its pipe does. The memory has no name that could be left over.

    Args:
        scenario: The scenario.
        view: What is seen.
        layout: What all environments have in common.
        n_workers: Number of processes.
    """

    def __init__(self, scenario: Scenario, view: ViewName, layout: Layout, n_workers: int) -> None:
        # A fresh interpreter: a forked one would inherit engines and locks in whatever state they are.
        context = multiprocessing.get_context("spawn")
        memory = context.RawArray("B", Board.n_bytes(layout))
        super().__init__(layout, Board(layout, memory), n_workers)
        self._pipes: list[Connection] = []
        self._workers: list[Any] = []
        self._shut = weakref.finalize(self, _shut_down, self._pipes, self._workers)
        try:
            for place in self.bounds:
                ours, theirs = context.Pipe()
                job = (theirs, scenario, view, layout, memory, place)
                worker = context.Process(target=_work, args=job, name=f"powergrid-{place[0]}", daemon=True)
                self._pipes.append(ours)
                worker.start()
                self._workers.append(worker)
                theirs.close()
            self._collect(list(range(n_workers)))
        except _PlayedError as failed:
            self.close()
            raise failed.cause from None
        except BaseException:
            self.close()
            raise

    def _step(self, *, infos: bool) -> None:
        token = _STEP_AND_INFOS if infos else _STEP
        self._exchange(dict.fromkeys(range(len(self.bounds)), token))

    def _call(self, calls: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        return self._exchange({i: pickle.dumps(call) for i, call in enumerate(calls) if call is not None})

    def _exchange(self, messages: dict[int, bytes]) -> list[Any]:
        """Send messages to workers and wait for all answers; whatever breaks that off ends the workers."""
        if not self._shut.alive:
            raise EngineError("the worker processes have ended; build the environment anew")
        try:
            for i, message in messages.items():
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # told below, where it is missed
                    self._pipes[i].send_bytes(message)
            return self._collect(list(messages))
        except _PlayedError as failed:
            raise failed.cause from None
        except BaseException:
            self.close()
            raise

    def _collect(self, asked: Sequence[int]) -> list[Any]:
        """Wait for the answers of some workers, None for the others.

        Raises:
            _PlayedError: a worker raised; with what the first of them did, all having answered.
            EngineError: a worker died.
        """
        answers: list[Any] = [None] * len(self.bounds)
        raised = []
        for i in asked:
            try:
                answer = self._pipes[i].recv_bytes()
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
        self._workers[i].join(_PATIENCE_S)
        code = self._workers[i].exitcode
        hint = "" if code != 1 else "; a script that starts it needs the guard: if __name__ == '__main__'"
        return (
            f"worker process {i} with environments {first}..{last - 1} ended with exit code {code}{hint}; "
            "all others were ended as well: build the environment anew"
        )

    def close(self) -> None:
        """End the workers, each giving its engines back."""
        self._shut()


class _PlayedError(Exception):
    """Carry what a worker raised while it goes on living."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


def _shut_down(pipes: list[Connection], workers: list[Any]) -> None:
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


def _work(
    pipe: Connection, scenario: Scenario, view: ViewName, layout: Layout, memory: Any, place: tuple[int, int]
) -> None:
    """Be a worker: build a slice and do what is asked until there is nobody left to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the caller's to handle; it ends this by the pipe
    with contextlib.suppress(EOFError, OSError):
        try:
            part = Slice(
                GridTask(scenario, place[1] - place[0]), layout, view, Board(layout, memory).rows(*place), place[0]
            )
        except Exception as error:  # noqa: BLE001 (the caller gets it)
            pipe.send_bytes(_pack_error(error))
            return
        pipe.send_bytes(_DONE)
        try:
            while (message := pipe.recv_bytes()) != _QUIT:
                pipe.send_bytes(_answer(part, message))
        finally:
            part.close()


def _answer(part: Slice, message: bytes) -> bytes:
    try:
        if message in (_STEP, _STEP_AND_INFOS):
            part.step()
            if message == _STEP_AND_INFOS:
                part.infos()
            return _DONE
        name, *arguments = pickle.loads(message)
        answer = getattr(part, name)(*arguments)
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
