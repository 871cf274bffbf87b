"""Which ranges the episodes of an iteration draw their numbers by, and the way of these to all that samples."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from powergrid.envs.draws import Draws
from powergrid.errors import PowerGridError, ScenarioError

Ranges = Mapping[str, Any]


class Curriculum:
    """Lead the ranges of a training by its iterations; an object of it is what RLlib's callbacks call.

    Args:
        given: Ranges by the iterations done from which on they hold, the scenario's own before the first; or
            ``module:function``, which returns ranges, given the iterations done.
    """

    def __init__(self, given: str | Mapping[int, Ranges]) -> None:
        self.given = given

    def ranges(self, iteration: int) -> dict[str, Any]:
        """Return what episodes draw by once so many iterations are done.

        Raises:
            PowerGridError: The function cannot be imported, fails, or returns no ranges.
        """
        if not isinstance(self.given, str):
            return dict(self.given[max(begun)]) if (begun := [at for at in self.given if at <= iteration]) else {}
        try:
            found = pkgutil.resolve_name(self.given)(iteration)
        except Exception as error:
            told = f"curriculum {self.given} for iteration {iteration}: {type(error).__name__}: {error}"
            raise PowerGridError(f"{told}; it is module:function, of a module on PYTHONPATH") from error
        if not isinstance(found, Mapping):
            raise PowerGridError(f"curriculum {self.given} returned {found!r:.60} and not ranges by key, such as {{}}")
        return dict(found)

    def find_problems(self, scenario: Any) -> list[str]:
        """Say what is wrong with any of the ranges, as far as they are known before training."""
        if not hasattr(scenario, "ranges"):
            return ["curriculum: only powergrid's own environments draw numbers by ranges"]
        problems: list[str] = []
        for at in [0] if isinstance(self.given, str) else self.given:
            try:
                Draws(scenario).read(self.ranges(at))
            except ScenarioError as error:
                problems += [f"curriculum from iteration {at}: {line}" for line in error.problems]
            except PowerGridError as error:
                problems.append(str(error))
        return problems

    def __call__(self, *, algorithm: Any, **kwargs: Any) -> None:
        """Let all that samples for an algorithm draw by what is the turn of."""
        set_ranges(algorithm, self.ranges(algorithm.iteration))


def set_ranges(algorithm: Any, ranges: Ranges) -> None:
    """Let all environments that an RLlib algorithm samples from draw episodes to come by these ranges.

    For a callback of your own: ``on_train_result`` is called after every iteration. What evaluates is left alone.

    Args:
        algorithm: Any of RLlib's, on :class:`powergrid.envs.NetworkedGridEnv` or ``powergrid.make_central``.
        ranges: As :meth:`powergrid.envs.NetworkedGridEnv.set_ranges` takes them.

    Raises:
        ScenarioError: A key cannot be drawn, or a value is wrong.
        PowerGridError: The environments draw nothing by ranges.
    """
    algorithm.env_runner_group.foreach_env_runner(partial(_draw_by, ranges=dict(ranges)))


def _draw_by(runner: Any, ranges: Ranges) -> None:
    for env in _environments(runner.env) if getattr(runner, "env", None) is not None else ():
        if not hasattr(env, "set_ranges"):
            raise PowerGridError(f"{type(env).__name__} has no set_ranges; powergrid's own environments have")
        env.set_ranges(ranges)


def _environments(env: Any) -> Iterator[Any]:
    """Find what draws: of many environments each, within what wraps it."""
    own = getattr(env, "vector", None) or getattr(env, "unwrapped", env)
    if hasattr(own, "set_ranges"):
        yield own
    elif hasattr(own, "envs"):
        for each in own.envs:
            yield from _environments(each)
    else:
        yield getattr(own, "inner", own)
