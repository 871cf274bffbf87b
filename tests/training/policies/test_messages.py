"""Networks that pass messages over the graph that agents observe: what must change nothing, training, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import powergrid
from powergrid.envs import NetworkedGridEnv
from powergrid.envs.observations.graph import EDGE_FEATURES, NODE_FEATURES, GraphForm
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.training import export_run, load_policy, train
from powergrid.training.policies.inference import Network, Policy
from powergrid.training.policies.messages import MessagePassing
from powergrid.training.rllib.config import ppo_config
from tests.training.conftest import TINY
from tests.training.policies.test_export import run_file

N_X, N_E = len(NODE_FEATURES), len(EDGE_FEATURES)
WIDTH, ROUNDS, N_OUT = 8, 3, 5
#: Each agent has a graph of its own, with room for that of any feeder that is played.
CONFIG = {
    "env_name": "ieee13_mg",
    "placement": {"rule": "load"},
    "observations": "graph",
    "graph": {"max_buses": 80, "max_branches": 80},
    "episode_length": 8,
}
GRAPHS = TINY | {"network": "graph", "graph_width": 8, "num_envs_per_env_runner": 2, "train_batch_size": 32}
GRAPHS |= {"minibatch_size": 16, "num_epochs": 1, "validation_episodes": 1}


def network(form: GraphForm) -> Network:
    """Return a network of drawn weights, the same whatever room there is in the form."""
    rng = np.random.default_rng(3)
    graph = MessagePassing(form.n_own, form.n_nodes, form.n_edges, WIDTH, ROUNDS, len(form.flags))
    sizes = [*graph.layers, (graph.outputs, 12), (12, N_OUT)]
    weights = tuple(rng.normal(0.0, 0.5, (out, into)).astype(np.float32) for into, out in sizes)
    biases = tuple(rng.normal(0.0, 0.1, out).astype(np.float32) for _, out in sizes)
    return Network(weights, biases, ("tanh",) * (len(sizes) - 1) + ("linear",), graph=graph)


@pytest.fixture(scope="module")
def seen() -> tuple[dict[str, np.ndarray], GraphForm]:
    """Return what ``MG1`` of two feeders sees in some steps, as parts, and how it lies."""
    rows = []
    for feeder in ("ieee13", "ieee34"):
        env = NetworkedGridEnv(CONFIG | {"feeder": feeder})
        rows += [env.reset(seed=0)[0]["MG1"]]
        for agent in env.possible_agents:
            env.action_spaces[agent].seed(0)
        for _ in range(3):
            rows.append(env.step({a: env.action_spaces[a].sample() for a in env.agents})[0]["MG1"])
        _, form = env.describe().graphs["MG1"]
        env.close()
    return form.split(np.array(rows)), form


def join(parts: dict[str, np.ndarray]) -> tuple[np.ndarray, GraphForm]:
    """Return parts as observations, and how they lie there."""
    n, n_nodes, n_edges = len(parts["own"]), parts["nodes"].shape[1], parts["edges"].shape[1]
    index = parts["edge_index"] * 2.0 / (n_nodes - 1) - 1.0
    flat = [parts["own"], parts["nodes"].reshape(n, -1), index.reshape(n, -1), parts["edges"].reshape(n, -1)]
    return np.concatenate(flat, 1).astype(np.float32), GraphForm(parts["own"].shape[1], n_nodes, n_edges)


def test_numpy_and_torch_give_the_same(seen: tuple[dict[str, np.ndarray], GraphForm]) -> None:
    observations, form = join(seen[0])
    assert form == seen[1]
    own = network(form)
    given = own.torch_module()(torch.from_numpy(observations)).numpy()
    np.testing.assert_allclose(own.forward(observations), given, atol=1e-5)
    assert given.shape == (8, N_OUT)
    assert np.abs(given[0] - given[4]).max() > 1e-2  # on one feeder something else than on the other


def test_order_of_buses_and_branches_changes_nothing(seen: tuple[dict[str, np.ndarray], GraphForm]) -> None:
    parts, form = seen
    rng = np.random.default_rng(0)
    nodes, edges = rng.permutation(form.n_nodes), rng.permutation(form.n_edges)
    place = np.argsort(nodes)  # where a bus has gone
    moved = parts | {"nodes": parts["nodes"][:, nodes], "edges": parts["edges"][:, edges]}
    moved["edge_index"] = place[parts["edge_index"].astype(int)][:, :, edges] * moved["edges"][:, None, :, 0]
    one, other = (network(form).forward(join(each)[0]) for each in (parts, moved))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_flags_of_readings_go_with_their_buses(seen: tuple[dict[str, np.ndarray], GraphForm]) -> None:
    parts, form = seen
    drawn = np.random.default_rng(0).uniform(-1, 1, (len(parts["own"]), form.n_nodes, 2)) * parts["nodes"][..., :1]
    order = np.random.default_rng(1).permutation(form.n_nodes)
    told, moved = (
        parts | {"own": np.concatenate([parts["own"], flags.reshape(len(flags), -1)], 1)}
        for flags in (drawn, drawn[:, order])
    )
    moved |= {"nodes": parts["nodes"][:, order]}
    moved["edge_index"] = np.argsort(order)[parts["edge_index"].astype(int)] * parts["edges"][:, None, :, 0]
    flagged = GraphForm(join(told)[1].n_own, form.n_nodes, form.n_edges, ("age", "missing"))
    one, other = (network(flagged).forward(join(each)[0]) for each in (told, moved))
    np.testing.assert_allclose(one, other, atol=1e-5)
    without = parts | {"own": told["own"] * (np.arange(told["own"].shape[1]) < form.n_own)}
    assert np.abs(network(flagged).forward(join(without)[0]) - one).max() > 1e-3


def test_room_for_more_changes_nothing(seen: tuple[dict[str, np.ndarray], GraphForm]) -> None:
    parts, form = seen
    more = {
        "own": parts["own"],
        "nodes": np.pad(parts["nodes"], ((0, 0), (0, 30), (0, 0))),
        "edge_index": np.pad(parts["edge_index"], ((0, 0), (0, 0), (0, 25))),
        "edges": np.pad(parts["edges"], ((0, 0), (0, 25), (0, 0))),
    }
    observations, wider = join(more)
    assert (wider.n_nodes, wider.n_edges) == (form.n_nodes + 30, form.n_edges + 25)
    np.testing.assert_allclose(network(wider).forward(observations), network(form).forward(join(parts)[0]), atol=1e-6)


def test_bus_is_heard_over_as_many_branches_as_there_are_rounds() -> None:
    form = GraphForm(1, 6, 5)  # a row of buses, the agent's at its head
    parts = {"own": np.zeros((1, 1)), "nodes": np.zeros((1, 6, N_X)), "edges": np.zeros((1, 5, N_E))}
    parts["nodes"][..., 0] = parts["edges"][..., 0] = 1.0
    parts["nodes"][0, 0, -1] = 1.0
    parts["edge_index"] = np.array([[[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]])
    own = network(form)
    summed = (WIDTH, [*own.graph.layers, (own.graph.outputs, N_OUT)])
    only = np.zeros((N_OUT, summed[1][-1][0]), np.float32)
    only[:, 1 : 1 + N_OUT] = np.eye(N_OUT)  # read the agent's own bus alone
    own = replace(
        own, weights=(*own.weights[:-2], only), biases=(*own.biases[:-2], np.zeros(N_OUT, np.float32)),
        activations=(*own.activations[:-2], "linear"),
    )  # fmt: skip
    usual = own.forward(join(parts)[0])
    for bus in range(1, 6):
        changed = {name: value.copy() for name, value in parts.items()}
        changed["nodes"][0, bus, 1] = 0.7
        moved = np.abs(own.forward(join(changed)[0]) - usual).max()
        assert (moved > 1e-6) == (bus <= ROUNDS), bus


def test_policy_file_holds_the_graph_and_says_what_does_not_fit(tmp_path: Path) -> None:
    own = network(GraphForm(4, 5, 4))
    space = powergrid.make("ieee13_mg").action_space("MG1")
    wide = replace(own, weights=(*own.weights[:-1], np.ones((2 * space.shape[0], 12), np.float32)),
                   biases=(*own.biases[:-1], np.zeros(2 * space.shape[0], np.float32)))  # fmt: skip
    policy = Policy({"p": wide}, {"MG1": "p"}, {"MG1": space})
    policy.save(tmp_path)
    observations = wide.graph.complete(np.random.default_rng(0).uniform(-1, 1, (3, wide.width)))
    for backend in ("numpy", "torch"):
        again = Policy.load(tmp_path, backend)
        assert again.networks["p"].graph == wide.graph
        np.testing.assert_allclose(again.act_batch("MG1", observations), policy.act_batch("MG1", observations), 1e-5)
    file = tmp_path / "policy.json"
    file.write_text(file.read_text().replace('"rounds": 3', '"rounds": 2'))
    with pytest.raises(PowerGridError, match=r"layer 5 of 'p' is .* after"):
        Policy.load(tmp_path)


def test_training_exporting_and_playing_another_feeder(ray_session: None, tmp_path: Path) -> None:
    result = train(
        CONFIG | {"feeders": ["ieee13", "ieee34"]},
        GRAPHS | {"iterations": 2},
        out_dir=tmp_path,
        name="run",
        policies="shared",
    )
    policy = load_policy(result.folder)
    (own,) = policy.networks.values()
    assert own.graph.form.width == policy.spaces["MG1"][0]
    files = export_run(result.folder, tmp_path / "onnx")
    assert [file.name for file in files] == ["MG1.onnx", "MG2.onnx", "interface.json"]
    observations = own.graph.complete(np.random.default_rng(1).uniform(-1, 1, (7, own.width)))
    for n in (1, 7):
        given = run_file(files[0], observations[:n], ["action"])["action"]
        np.testing.assert_allclose(given, policy.act_batch("MG1", observations[:n]), atol=1e-4, rtol=1e-4)
    report = evaluate(CONFIG | {"feeder": "ieee123"}, [("run", policy)], days=1)
    assert report.frame["finished"].all()


def test_gradients_reach_every_layer_of_actor_and_critic() -> None:
    config = ppo_config(CONFIG, policies="shared", **GRAPHS)
    module = config.get_multi_rl_module_spec(env=config.env(CONFIG)).build()["grid_policy"]
    drawn = np.random.default_rng(0).uniform(-1, 1, (6, module.graph.inputs))
    observations = torch.from_numpy(module.graph.complete(drawn))
    out = module._forward_train({"obs": observations})
    (out["action_dist_inputs"].square().sum() + module.compute_values({"obs": observations}).sum()).backward()
    still = [name for name, own in module.named_parameters() if own.grad is None or not own.grad.abs().sum() > 0.0]
    assert not still


def test_network_without_a_graph_to_look_at_says_so() -> None:
    with pytest.raises(ScenarioError, match="agents observe no graph; set observations: graph in the scenario"):
        ppo_config("ieee13_mg", network="graph")
    with pytest.raises(ScenarioError, match=r"network 'graph' reads observations as they are .* observation_filter"):
        ppo_config("ieee13_mg", network="graph", observation_filter="mean_std")
