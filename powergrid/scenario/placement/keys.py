"""Keys of a scenario that name what a feeder has: taps, steps, ratings, classes of loads, events; and its rewards."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from powergrid.scenario.placement.names import Names
from powergrid.scenario.placement.scaling import short


class Keys:
    """Bring keys to the new feeder.

    Args:
        names: Finds names and keeps the record.

    Attributes:
        moved: The keys with what stands there now.
    """

    def __init__(self, names: Names) -> None:
        self._names, self.there = names, names.there
        self.moved: dict[str, Any] = {}
        self._move_keys()
        self._scale_rewards()

    def _move_keys(self) -> None:
        network = self.there.equipment.network
        for key, class_name, known in (
            ("taps", "regcontrol", network.regulator_controls),
            ("steps_on", "capacitor", network.capacitors),
        ):
            self.moved[key] = self._rename(key, class_name, self._names.data[key], known)
        moved = {}
        for name, amps in self._names.data["norm_amps"].items():
            new = self._names.mapped(name) if name.lower() in self._names.map else name
            if new is not None and new.lower() in network.branches.names:
                moved[new] = amps
            elif self._names.wish.rule is not None or name.lower() in self._names.map:
                self._names.left.append(f"norm_amps.{name}: ratings are the new feeder's own")
            else:
                self._names.problems.append(f"norm_amps: {name!r} is not on {self.there.name}{self._names.like(name)}")
        self.moved["norm_amps"] = moved
        classes, loads = {}, network.loads.names
        for pattern, demand in self._names.data["profiles"]["load_classes"].items():
            if any(fnmatch.fnmatchcase(load, pattern.lower()) for load in loads):
                classes[pattern] = demand
            elif self._names.wish.rule is not None:
                self._names.left.append(f"profiles.load_classes.{pattern}: no load of the new feeder is called so")
            else:
                self._names.problems.append(
                    f"profiles.load_classes: no load of {self.there.name} is called {pattern!r}"
                )
        self.moved["profiles"] = self._names.data["profiles"] | {"load_classes": classes}
        self.moved["events"] = {
            name: self._move_event(name, event) for name, event in self._names.data["events"].items()
        }

    def _move_event(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Let an event strike what is there: names and patterns that fit stay, others follow the map or the rule."""
        network, event = self.there.equipment.network, dict(given)
        sources = [f"{kind}.{each}" for kind, names in network.elements.items() for each in names]
        known: dict[str, Sequence[str]] = {
            "bus": network.buses,
            "element": [*network.branches.names, *(each.lower() for each in sources)],
            "loads": network.loads.names,
        }
        for key, names in known.items():
            if event.get(key) is not None:
                event[key] = tuple(self._names.struck(f"events.{name}.{key}", each, names) for each in event[key])
        if str(event.get("cleared_by", "nearest")) not in ("nearest", "agents"):
            event["cleared_by"] = self._names.struck(f"events.{name}.cleared_by", event["cleared_by"], known["element"])
        gone = [device for device in event.get("device") or () if device in self._names.dropped]
        self._names.problems += [f"events.{name}.device: {device!r} is left out by the map" for device in gone]
        return event

    def _rename(self, key: str, class_name: str, given: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
        moved: dict[str, Any] = {}
        for name, value in given.items():
            full = f"{class_name}.{name.lower()}"
            if full in self._names.map:
                mapped = self._names.mapped(full)
                new, why = (None if mapped is None else mapped.partition(".")[2]), "map"
            elif self._names.wish.rule is None:
                new, why = (name if name.lower() in known else None), "same name"
            else:
                element = self._names.in_order(class_name).get(full)
                new, why = (None if element is None else element.name.partition(".")[2]), "order of distance"
            if new is not None and new.lower() not in known:  # a transformer that no RegControl moves
                self._names.left.append(
                    f"{key}.{name}: no control moves the taps of {new!r}, which start as the model has them"
                )
            elif new is not None:
                moved[new] = value
                self._names.moves[f"{key}.{name}"] = (name, new, why)
            elif self._names.wish.rule is None and full not in self._names.map:
                self._names.problems.append(f"{key}: {name!r} is not on {self.there.name}{self._names.like(full)}")
            else:
                self._names.left.append(f"{key}.{name}: has no counterpart on {self.there.name}")
        return moved

    def _scale_rewards(self) -> None:
        wanted = (
            self._names.wish.rule is not None
            if self._names.wish.scale_rewards is None
            else self._names.wish.scale_rewards
        )
        if not wanted:
            return
        nodes = len(self._names.home.equipment.network.nodes) / len(self.there.equipment.network.nodes)
        reward, penalty = self._names.data["reward"], self._names.data["penalty"]
        self.moved["reward"] = reward | {"scale": short(reward["scale"] / self._names.ratio)}
        self.moved["penalty"] = short(penalty * self._names.ratio * nodes)
        why = "nominal demand and number of nodes"
        self._names.moves["reward.scale"] = (f"{reward['scale']:g}", f"{self.moved['reward']['scale']:g}", why)
        self._names.moves["penalty"] = (f"{penalty:g}", f"{self.moved['penalty']:g}", why)
