"""Which keys make two scenarios differ: what is no matter to what is played, and what later versions added unset."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

#: Keys that name, place or tell and change nothing that is played, or that what a digest holds beside the keys tells.
_UNPLAYED = (
    "version",
    "model_root",
    "placed",
    "feeders",
    "infos",
    "day_weights",
    "agent_names",  # `agents` has them
    "ignore_case",
    "feeder_changes",  # in the feeder's digest
)
#: Keys that came after 0.1.0, and what they say where they change nothing.
_UNSET: Mapping[str, Any] = {
    "rating_scale": 1.0,
    "start_hour": 0.0,
    "ranges": {},
    "action_masks": "none",
    "plain_discrete": False,
    **dict.fromkeys(("outlook", "costs", "telemetry", "graph", "proposals")),
}
#: The same of devices and of parts of a scenario.
_UNSET_OF_DEVICES = ("p_limit_kw", "q_inject_max_kvar", "q_absorb_max_kvar", "moves_per_day")
_UNSET_OF_PARTS = (
    ("profiles", "price_scale", 1.0),
    ("profiles", "shape_mode", None),
    ("reward", "goal", None),
    ("reward", "preset", None),
)


def keys_that_matter(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scenario's plain data without keys that change nothing that is played.

    Run folders keep digests over it: a key that came after 0.1.0 stays out where it is not set.

    Args:
        data: As :meth:`powergrid.scenario.model.Scenario.to_dict` returns it; stays as it is.
    """
    kept = copy.deepcopy(dict(data))
    for microgrid in kept["microgrids"].values():
        del microgrid["feeder"]  # in the feeder's digest
    for key in (*_UNPLAYED, *(() if kept["feeders"] else ("placement",))):
        del kept[key]
    outlook = kept["outlook"]
    if outlook is not None and outlook["price_forecast"] == "known" and not outlook["price_error"]:
        del outlook["price_forecast"], outlook["price_error"]
    for key, unset in _UNSET.items():
        if kept[key] == unset:
            del kept[key]
    for part, key, unset in _UNSET_OF_PARTS:
        if kept[part][key] == unset:
            del kept[part][key]
    for device, key in itertools.product(kept["devices"].values(), _UNSET_OF_DEVICES):
        if device.get(key, ...) is None:
            del device[key]
    if kept["never_worse_than"] is None:
        del kept["never_worse_than"], kept["never_worse_in"], kept["release_steps"]
    del kept["profiles"]["map"]  # in the profiles' digest
    return kept
