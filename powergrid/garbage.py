"""When Python looks for garbage: not while thousands of objects are made that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def put_off_collection() -> Iterator[None]:
    """Look for no unreachable cycles meanwhile, for which all objects of the process are walked time and again.

    Of a feeder of 6,000 loads, as commands, names and tuples, that was a fifth of what ``make`` took.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
