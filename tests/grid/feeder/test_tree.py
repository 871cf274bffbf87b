"""The tree below a source against networkx, an independent implementation, on graphs with meshes and loose parts."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from powergrid.grid.feeder.network.tree import grow

N = 9
PAIRS = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)).filter(lambda p: p[0] != p[1]), max_size=20)


@given(pairs=PAIRS, source=st.integers(0, N - 1))
@settings(max_examples=60, deadline=None)
def test_tree_of_any_graph_is_one_of_shortest_ways(pairs: list[tuple[int, int]], source: int) -> None:
    joined = np.array([(branch, *pair) for branch, pair in enumerate(pairs)], dtype=np.int64).reshape(-1, 3)
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(N))
    graph.add_edges_from((one, other, {"branch": branch}) for branch, one, other in joined.tolist())
    tree = grow(N, source, joined)

    lengths = nx.single_source_shortest_path_length(graph, source)
    assert tree.depth.tolist() == [lengths.get(bus, -1) for bus in range(N)]
    assert tree.order.tolist() == list(nx.dfs_preorder_nodes(nx.bfs_tree(graph, source), source))
    below: nx.DiGraph[int] = nx.DiGraph()
    below.add_nodes_from(range(N))
    for bus, above in enumerate(tree.above.tolist()):
        assert (above >= 0) == (bus in lengths and bus != source)
        assert tree.branch[bus] == (graph.edges[above, bus]["branch"] if above >= 0 else -1)
        if above >= 0:
            below.add_edge(above, bus)
    for bus in range(N):
        assert set(tree.below(bus).tolist()) == {bus, *nx.descendants(below, bus)}
        way = tree.way(bus)
        assert way == [bus] if bus not in lengths else (way[-1] == source and len(way) == lengths[bus] + 1)
