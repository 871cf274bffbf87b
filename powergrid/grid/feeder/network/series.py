"""Lines in series, which carry one current: of these one is counted where overloads are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from powergrid.grid.feeder.network.network import Network
from powergrid.grid.feeder.network.shapes import BoolArray


def count_once(network: Network, device_buses: Iterable[str] = ()) -> BoolArray:
    """Return whether each branch counts where overloads do: of lines in series the one of least rating, shape (n,).

    Two lines are in series where they meet at a bus, on the same nodes, and nothing else is tied to it: no load, bank,
    transformer or source, no third line, and no device that is added there. Whatever is switched elsewhere, they then
    carry one current but for their charging. A switch before the line that it switches is the usual case. What has
    something between it and the next, however small, counts by itself.

    Args:
        network: The network, with the ratings that count.
        device_buses: Names of the buses where devices are added.
    """
    b = network.branches
    is_line = np.array([name.startswith("line.") for name in b.names], dtype=bool)
    tied = np.zeros(len(network.buses), dtype=bool)
    tied[network.tapped] = True
    tied[[network.bus_index[name.lower()] for name in device_buses if name.lower() in network.bus_index]] = True
    tied[b.terminal_bus[~is_line[b.terminal_branch] & (b.terminal_bus >= 0)]] = True
    meeting: dict[int, list[tuple[int, frozenset[int]]]] = {}
    rows = np.split(b.row_node, b.terminal_rows[1:])[: len(b.terminal_bus)]  # one even where there is no branch
    for branch, bus, nodes in zip(b.terminal_branch.tolist(), b.terminal_bus.tolist(), rows, strict=True):
        if bus >= 0 and not tied[bus]:
            meeting.setdefault(bus, []).append((branch, frozenset(nodes[nodes > 0].tolist())))
    pairs = [
        (ends[0][0], ends[1][0])
        for ends in meeting.values()
        if len(ends) == 2 and ends[0][0] != ends[1][0] and ends[0][1] == ends[1][1]
    ]
    counts = np.ones(len(b.names), dtype=bool)
    if not pairs:
        return counts
    u, v = np.array(pairs).T
    labels = connected_components(coo_array((np.ones(len(u)), (u, v)), shape=(len(counts),) * 2), directed=False)[1]
    rated = np.where(b.norm_amps > 0.0, b.norm_amps, np.inf)
    order = np.lexsort((np.arange(len(counts)), rated, labels))  # the least rating of each first
    counts[order] = np.diff(labels[order], prepend=-1) != 0
    return counts
