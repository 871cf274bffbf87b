"""Threads that share what is to be done once for each of several circuits.

They pay where the work lets go of the interpreter, as the engine's calls do. Circuits are made and given back by the
thread that asks; the others only play them.
"""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Crew:
    """Let threads share out n circuits, the caller's thread among them.

    Args:
        n_threads: Number of threads, 2 or more.
        n_circuits: Number of circuits.
    """

    def __init__(self, n_threads: int, n_circuits: int) -> None:
        cuts = [round(i * n_circuits / n_threads) for i in range(n_threads + 1)]
        self._own, *self._others = itertools.pairwise(cuts)
        self._pool = ThreadPoolExecutor(len(self._others), thread_name_prefix="powergrid")

    def share(self, play: Callable[[int, int], None]) -> None:
        """Play all circuits, and come back when all are through.

        Args:
            play: Plays the circuits from the first number up to the second.

        Raises:
            Exception: what a part raised, the caller's own before others'.
        """
        others: list[Future[None]] = [self._pool.submit(play, *part) for part in self._others]
        try:
            play(*self._own)
        finally:
            concurrent.futures.wait(others)  # whatever came of it: nobody plays on behind the caller's back
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
