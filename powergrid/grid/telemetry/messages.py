"""What agents tell each other: who hears which numbers of whom, over links that are not perfect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from powergrid.errors import Problem, describe_unknown
from powergrid.grid.telemetry.links import IntArray, assign
from powergrid.grid.telemetry.readings import Mark, Measured, Readings
from powergrid.grid.telemetry.spec import MessagesSpec


class Messages:
    """Say what is heard, of what its senders are told.

    Args:
        specs: The messages.
        table: What is measured; None where that is no reading.
        agents: Devices of each agent, by its name.
        n_times: Steps of an episode, and one for the state after the last.
        step_minutes: Length of a step [min].
        problems: Where agents and channels are told that are unknown.

    Attributes:
        sources: Places in ``table`` of what is heard, shape (n_heard,).
        heard: What is heard, in that order.
        news: Says when it is heard.
    """

    def __init__(
        self,
        specs: Mapping[str, MessagesSpec],
        table: Sequence[Measured | None],
        agents: Mapping[str, Sequence[str]],
        n_times: int,
        step_minutes: int,
        problems: list[Problem],
    ) -> None:
        sources, heard, of = list[int](), list[Mark](), dict[str, list[str]]()
        for name, spec in specs.items():
            where, receivers = f"telemetry.messages.{name}", spec.to or [a for a in agents if a != spec.sender]
            unknown = [each for each in (spec.sender, *receivers) if each not in agents]
            problems += [Problem("unknown-agent", where, describe_unknown("agent", each, agents)) for each in unknown]
            if spec.sender in receivers:
                problems.append(Problem("bad-value", where, f"agent {spec.sender!r} would tell itself"))
            own = {spec.sender, *agents.get(spec.sender, ())}
            names = [each.name if each is not None and each.owner in own else "" for each in table]
            found = {} if unknown else assign("channel", "telemetry.messages", names, {name: spec.channels}, problems)
            for receiver in receivers if found else ():
                for place in found[name].tolist():
                    source = table[place]
                    if source is not None:
                        said = f"{receiver}.{name}_{source.name.replace('.', '_')}"
                        heard.append(Mark(said, source.unit, source.low, source.high, receiver))
                        sources.append(place)
                        of.setdefault(name, []).append(said)
        self.sources: IntArray = np.array(sources, dtype=np.int64)
        self.heard = heard
        own_specs = {name: specs[name].model_copy(update={"channels": tuple(said)}) for name, said in of.items()}
        self.news = Readings(heard, own_specs, n_times, step_minutes, problems)
