"""Which policies are one training with different seeds, and what they are called together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

#: What has to be said of a policy of which there is one training only.
ONE_SEED = "1 seed: no interval over seeds"


def find_seeds(players: Sequence[Any]) -> dict[str, int]:
    """Return by policy the seed of its training, of those that tell it, as :func:`powergrid.training.load_policy`'s do.

    Args:
        players: Names of baselines, or a name and a policy.
    """
    named = [player for player in players if not isinstance(player, str)]
    return {name: int(policy.seed) for name, policy in named if getattr(policy, "seed", None) is not None}


def group_seeds(players: Sequence[Any]) -> dict[str, tuple[str, ...]]:
    """Return the policies whose trainings differ in nothing but their seed, by a name with their number.

    Two of the same training with the same seed, as two checkpoints of a run, are no draws of their own: the second has
    a row of its own. So has each whose training is not known, without a group.
    """
    seeds = find_seeds(players)
    trained: dict[tuple[str, int], dict[int, str]] = {}
    for name, policy in (player for player in players if not isinstance(player, str)):
        training, again = str(getattr(policy, "trained_as", None) or ""), 0
        if training and name in seeds:
            while seeds[name] in trained.get((training, again), {}):
                again += 1
            trained.setdefault((training, again), {})[seeds[name]] = name
    taken = {player if isinstance(player, str) else player[0] for player in players}
    found: dict[str, tuple[str, ...]] = {}
    for members in (tuple(own.values()) for own in trained.values()):
        name = _name_together(members)
        if len(members) > 1 and (name in taken or f"{name} ({len(members)} seeds)" in found or not name):
            name = f"{members[0]} to {members[-1]}"
        found[f"{name} ({_say_seeds(len(members))})"] = members
    return found


def note_seeds(players: Sequence[Any]) -> dict[str, str]:
    """Return for each policy whose seed is known a sentence on how much its numbers say of its training."""
    found: dict[str, str] = {}
    for members in group_seeds(players).values():
        which = "one seed of its training" if len(members) == 1 else f"one of {len(members)} seeds of one training"
        found |= dict.fromkeys(members, f"It is {which}: intervals here are over days, not over seeds.")
    return found


def each_seed(groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return groups of one policy each for those of all groups."""
    return {f"{name} ({_say_seeds(1)})": (name,) for members in groups.values() for name in members}


def _say_seeds(count: int) -> str:
    """Return how many seeds in words."""
    return f"{count} seed{'s' * (count != 1)}"


def _name_together(members: Sequence[str]) -> str:
    """Return what names have in common from the beginning, without the number or what leads to it."""
    if len(members) == 1:
        return members[0]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*members, strict=False))
    return "".join(letters[0] for letters in alike).rstrip("0123456789").rstrip("-_ .")
