"""Do several things in processes of their own, and tell which are done as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")


def run_jobs(work: Callable[..., T], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[tuple[int, T]]:
    """Call a function with the arguments of each job, here or in processes; yield the place of each and what it gave.

    Args:
        work: A function of a module.
        jobs: Its arguments, which can be sent to another process where there are several workers.
        workers: Most processes.
    """
    if workers == 1 or len(jobs) < 2:
        for place, job in enumerate(jobs):
            yield place, work(*job)
        return
    # Each engine lives in one process; a fork would carry the parent's along.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        waiting: dict[Future[T], int] = {pool.submit(work, *job): place for place, job in enumerate(jobs)}
        try:
            while waiting:
                wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in [each for each in waiting if each.done()]:
                    yield waiting.pop(future), future.result()
        except BaseException:  # also a user's Ctrl-C: what is kept stays, what has not begun does not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
