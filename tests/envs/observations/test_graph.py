"""Feeders as graphs: what arrays hold is what network and solved state say; observations come apart into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

import powergrid
from powergrid.envs.observations.graph import EDGE_FEATURES, NODE_FEATURES
from powergrid.errors import ScenarioError
from tests.envs.conftest import close_after

X = {feature.name: place for place, feature in enumerate(NODE_FEATURES)}
E = {feature.name: place for place, feature in enumerate(EDGE_FEATURES)}


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    """Make environments whose agents see graphs; they are closed at the end."""
    yield from close_after(lambda **keys: powergrid.make("ieee13_mg", observations="graph", **keys))


def test_graph_of_a_feeder_holds_what_its_network_says() -> None:
    env = powergrid.make("ieee13_mg")
    network, description = env.task.simulation.network, env.describe()
    env.close()
    graph = description.graph
    assert graph.nodes == network.buses
    assert graph.node_features.shape == (len(network.buses), len(NODE_FEATURES))
    assert graph.node_features[:, X["nominal_kw"]].sum() == pytest.approx(network.loads.kw.sum())
    assert graph.node_features[graph.nodes.index("611"), X["phases"]] == 1.0
    assert graph.node_features[graph.nodes.index("634"), X["v_base_kv"]] == pytest.approx(0.48 / 3**0.5)
    of = dict(zip(graph.edges, graph.edge_features, strict=True))
    assert of["transformer.xfm1"][E["transformer"]] == 1.0
    # 500 kVA with R = 1.1 % and X = 2 %, on the base of the nominal demand
    assert of["transformer.xfm1"][E["z_pu"]] == pytest.approx(
        np.hypot(0.011, 0.02) * network.loads.kw.sum() / 500, rel=0.02
    )
    near, far = graph.node_features[graph.edge_index, X["distance"]]
    assert (near <= far).all()
    told = graph.to_networkx()
    assert nx.is_isomorphic(nx.Graph(told), nx.Graph(network.graph))
    assert told.nodes["634"]["nominal_kw"] == 400.0
    phases = description.phase_graph
    assert phases.nodes == network.nodes
    assert phases.node_features[:, 2].sum() == pytest.approx(network.loads.kw.sum())
    assert description.graphs == {}


@pytest.mark.parametrize("keys", [{}, {"mode": "centralized"}, {"graph": {"max_buses": 20, "max_branches": 30}}])
def test_observations_come_apart_into_what_was_solved(make: Callable[..., Any], keys: dict[str, Any]) -> None:
    env = make(**keys)
    env.reset(seed=0, options={"day": 171})
    for _ in range(50):
        seen, *_ = env.step({agent: space.sample() for agent, space in env.action_spaces.items()})
    simulation, description = env.task.simulation, env.describe()
    network, table = simulation.network, description.observations
    demand_kw = simulation.day_load_kw[0, simulation.step_index[0]]
    for agent, (graph, form) in description.graphs.items():
        assert form.width == len(seen[agent])
        parts = form.split(seen[agent])
        n, m = len(graph.nodes), len(graph.edges)
        assert (n, m) <= (form.n_nodes, form.n_edges)
        assert np.array_equal(parts["edge_index"][:, :m], graph.edge_index)
        assert not parts["edge_index"][:, m:].any()
        assert not parts["nodes"][n:].any()
        assert not parts["edges"][m:].any()
        high = table[table["agent"] == agent].set_index("name")["high"]
        for i, bus in enumerate(graph.nodes):
            index, row = network.bus_index[bus], parts["nodes"][i]
            for node in network.nodes_of([index]):
                v_pu = np.clip(simulation.snapshot.v_pu[0, node], 0.85, 1.15)
                assert row[network.node_phase[node]] * 0.15 + 1.0 == pytest.approx(v_pu, abs=1e-6)
            here = demand_kw[network.loads.bus == index].sum()
            name = next(name for name in high.index if name.endswith(f".node_{i}.demand_kw"))
            assert row[X["demand_kw"]] * high[name] == pytest.approx(here, abs=1e-3)
        branches = [network.branch_index[name] for name in graph.edges]
        loading = np.clip(simulation.snapshot.loading_pu[0, branches], 0.0, 2.0)
        np.testing.assert_allclose(parts["edges"][:m, E["loading_pu"]] * 2.0, loading, atol=1e-6)
        there = form.split(torch.from_numpy(seen[agent])[None, None])
        assert all(np.array_equal(part[0, 0].numpy(), parts[name]) for name, part in there.items())
    delivered = np.array(simulation.powers.delivered[0, 0]).sum()
    if "mode" in keys:
        rows = parts["nodes"][:, X["p_kw"]].sum() * next(high[name] for name in high.index if name.endswith("_0.p_kw"))
        assert rows == pytest.approx(delivered, abs=0.01)


def test_agents_on_several_feeders_see_graphs_of_one_size() -> None:
    keys = {"feeders": ["ieee13", "ieee34"], "placement": {"rule": "load"}, "observations": "graph"}
    with pytest.raises(ScenarioError, match="with several feeders give max_buses and max_branches"):
        powergrid.make("ieee13_mg", **keys)
    with pytest.raises(ScenarioError, match=r"graph.max_buses: 20 is less than the \d+ buses of the MG1 graph; set it"):
        powergrid.make("ieee13_mg", **keys, graph={"max_buses": 20, "max_branches": 40})
    with pytest.raises(ScenarioError, match="set observations: graph with it"):
        powergrid.make("ieee13_mg", graph={})
    env = powergrid.make_vector("ieee13_mg", 3, **keys, graph={"max_buses": 40, "max_branches": 40})
    try:
        env.reset(seed=0)
        _, form = env.describe().graphs["MG1"]
        counts = []
        for feeder in keys["feeders"]:
            seen, _ = env.reset(options={"feeder": feeder})
            counts.append(form.split(seen["MG1"])["nodes"][:, :, X["present"]].sum(axis=1))
        assert (counts[0] < counts[1]).all()
    finally:
        env.close()
