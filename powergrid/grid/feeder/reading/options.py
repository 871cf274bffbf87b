"""The options of ``Set`` and ``Solve``: kept as data, and which of them the engine is handed."""

from __future__ import annotations

from collections.abc import Sequence

from powergrid.grid.feeder.reading import syntax
from powergrid.grid.feeder.reading.statements import Parameter, expand


class Options:
    """What a feeder sets.

    Args:
        trust: Whether it may set what does more than describe a circuit.

    Attributes:
        settings: Last value of each option, run or not, by its full lower-case name, in the order in which they were
            given last.
    """

    def __init__(self, *, trust: bool) -> None:
        self._trust = trust
        self.settings: dict[str, str] = {}

    def take(self, given: Sequence[Parameter]) -> list[tuple[str, Parameter]]:
        """Keep options as data, whether they are run or not, and return each with its full name."""
        options: list[tuple[str, Parameter]] = []
        place = 0
        for each in given:
            full = expand(each.name, syntax.OPTIONS) if each.name else "".join(syntax.OPTIONS[place : place + 1])
            place = syntax.OPTIONS.index(full) + 1 if full else 0
            options.append((full, each))
        for name, each in options:
            if name:
                self.settings.pop(name, None)  # so that the last is last
                self.settings[name] = each.value.strip()
        return options

    def is_run(self, option: str) -> bool:
        """Whether an option of ``set`` is handed to the engine, or followed."""
        if option in syntax.DESCRIBING_OPTIONS or option in syntax.NAMING_OPTIONS or option == "datapath":
            return True
        return self._trust and option != "" and option not in syntax.NEVER_SET
