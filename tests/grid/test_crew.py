"""A crew plays every circuit once, in as many threads as it has, and comes back with all through."""

from __future__ import annotations

import threading
import time
from itertools import chain

import pytest

from powergrid.grid.crew import Crew


@pytest.mark.parametrize(("n_threads", "n_circuits"), [(2, 2), (2, 5), (3, 16), (4, 4)])
def test_every_circuit_is_played_once_and_each_part_by_another_thread(n_threads: int, n_circuits: int) -> None:
    crew, together = Crew(n_threads, n_circuits), threading.Barrier(n_threads)  # broken unless all are there at once
    played: dict[int, range] = {}

    def play(first: int, last: int) -> None:
        together.wait(timeout=10.0)
        played[threading.get_ident()] = range(first, last)

    crew.share(play)
    crew.close()
    assert sorted(chain(*played.values())) == list(range(n_circuits))
    assert len(played) == n_threads
    assert played[threading.get_ident()].start == 0  # the caller plays the first part
    assert max(map(len, played.values())) - min(map(len, played.values())) <= 1


@pytest.mark.parametrize("culprit", [0, 2])  # the caller's own part, another's
def test_error_of_a_part_is_raised_when_all_are_through(culprit: int) -> None:
    crew = Crew(3, 3)
    through: list[int] = []

    def play(first: int, last: int) -> None:
        if first == culprit:
            raise ValueError(f"circuit {first}")
        time.sleep(0.05)
        through.append(first)

    with pytest.raises(ValueError, match=f"circuit {culprit}"):
        crew.share(play)
    assert sorted(through) == sorted({0, 1, 2} - {culprit})
    crew.share(lambda first, last: through.append(first))  # and it goes on
    crew.close()
    assert len(through) == 5


def test_no_thread_is_left_when_it_is_closed() -> None:
    before = threading.active_count()
    crew = Crew(3, 3)
    crew.share(lambda first, last: None)
    assert threading.active_count() > before
    crew.close()
    assert threading.active_count() == before
