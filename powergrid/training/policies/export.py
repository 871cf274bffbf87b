"""Policies out of RLlib, and out of PowerGrid: an algorithm's networks in arrays, ONNX and TorchScript for others.

A file of ONNX or TorchScript takes the observations that the environment gives and gives the actions that it takes,
deterministic, filters and scaling included; a JSON says what is what. Nothing here trains, starts Ray or unpickles.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from ray.rllib.core import COMPONENT_ENV_TO_MODULE_CONNECTOR
from ray.rllib.utils.filter import RunningStat
from ray.rllib.utils.numpy import SMALL_NUMBER

import powergrid
from powergrid.errors import PowerGridError, describe_unknown
from powergrid.files import make_folder, path_of, replacing, telling, write_whole
from powergrid.training.policies.inference import (
    POLICY_FILE,
    TORCH_LAYERS,
    FloatArray,
    Network,
    ObservationFilter,
    Policy,
    load_policy,
)
from powergrid.training.policies.memory import GatedMemory
from powergrid.training.policies.spaces import FIT_KEY, position_counts
from powergrid.training.rllib.planning.facts import probe_env
from powergrid.training.runs.checkpoints import STATE_FILE, find_checkpoint, is_ours, trust_claims
from powergrid.training.runs.records import import_env, read_manifest

INTERFACE_FILE = "interface.json"
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}
OPSET = 17  # what runtimes since 2022 read
OUR_ENV = "powergrid.envs.networked:NetworkedGridEnv"
INPUT = "observation"
#: What is remembered, as it is put in at a step and as it comes out.
MEMORY = ("memory", "next_memory")
HOW_TO_SCALE = {
    "observations": "entry = clip(2 * (value - low) / (high - low) - 1, -1, 1)",
    "actions": "value = low + (entry + 1) / 2 * (high - low) where n is null; else the entry is a position 0..n-1",
}
_ACTIVATION_OF = {layer: name for name, layer in TORCH_LAYERS.items()} | {
    "FastTanh": "tanh"
}  # FastTanh is of rllib/layers.py

#: RLlib's connectors from observations to a module where none are added.
_DEFAULT_PIECES = {
    "AddObservationsFromEpisodesToBatch", "AddTimeDimToBatchAndZeroPad", "AddStatesFromEpisodesToBatch",
    "AgentToModuleMapping", "BatchIndividualItems", "NumpyToTensor",
}  # fmt: skip


def export_policy(algorithm: Any, folder: str | Path) -> Path:
    """Write the policy of an RLlib algorithm to a folder that :func:`load_policy` reads.

    Raises:
        PowerGridError: A network is not a plain perceptron, or its numpy form disagrees with it.
    """
    target = Path(folder)
    policy_of_algorithm(algorithm).save(target)
    return target


def policy_of_algorithm(algorithm: Any) -> Policy:
    """Copy the current networks of an RLlib algorithm, with its filters of observations."""
    config = algorithm.config
    policy_of = getattr(config.policy_mapping_fn, "policy_of", None)
    if policy_of is None:
        agents = probe_env(config.env, config.env_config).agents
        policy_of = {agent: str(config.policy_mapping_fn(agent, None)) for agent in agents}
    networks = {name: network_of_module(algorithm.get_module(name)) for name in sorted(set(policy_of.values()))}
    spaces = {agent: algorithm.get_module(name).action_space for agent, name in policy_of.items()}
    return Policy(
        networks,
        policy_of,
        spaces,
        normalize_actions=bool(config.normalize_actions),
        clip_actions=bool(config.clip_actions),
        filters=_filters_of_algorithm(algorithm, policy_of),
        fits=config.env_config.get(FIT_KEY, {}).get("fits") or {},
    )


def _filters_of_algorithm(algorithm: Any, agents: Iterable[str]) -> dict[str, ObservationFilter]:
    """Copy what the algorithm's MeanStdFilter has learnt of each agent's observations; empty where it has none.

    Raises:
        PowerGridError: Observations go through a connector of another kind, which a policy cannot hold.
    """
    from ray.rllib.connectors.env_to_module import MeanStdFilter

    runner, config = algorithm.env_runner, algorithm.config
    pieces = config.build_env_to_module_connector(env=runner.env, spaces=runner.get_spaces()).connectors
    others = sorted({type(piece).__name__ for piece in pieces} - _DEFAULT_PIECES - {MeanStdFilter.__name__})
    if others:
        raise PowerGridError(f"a policy with {', '.join(others)} cannot be exported; only MeanStdFilter can")
    learnt = runner.get_state(components=COMPONENT_ENV_TO_MODULE_CONNECTOR)[COMPONENT_ENV_TO_MODULE_CONNECTOR]
    states = learnt.get(MeanStdFilter.__name__, {})
    filters: dict[str, ObservationFilter] = {}
    for agent in agents if states else ():
        stats: Any = RunningStat.from_state(states[agent]["running_stats"][0])  # of one array: observations are flat
        mean, spread = np.array(stats.mean, np.float64), np.array(stats.std, np.float64)
        # RLlib divides so, lest an observation that never moved divide by zero.
        filters[agent] = ObservationFilter(mean, spread + SMALL_NUMBER, float(states[agent]["clip_by_value"] or np.inf))
    return filters


def network_of_module(module: Any) -> Network:
    """Copy a module's actor into arrays and check that both give the same numbers.

    What comes out is what the action is read from: the distribution's inputs of PPO, the tanh of SAC's means, the
    advantages or values of DQN's actions.
    """
    import torch

    weights: list[FloatArray] = []
    biases: list[FloatArray] = []
    activations: list[str] = []
    memory = None
    for layer in _actor_layers(module):
        kind = type(layer).__name__
        if kind == "GRU":
            memory = GatedMemory(len(weights), layer.hidden_size)
            own = {name: param.detach().cpu().numpy().copy() for name, param in layer.named_parameters()}
            weights += [own["weight_ih_l0"], own["weight_hh_l0"]]
            biases += [own["bias_ih_l0"], own["bias_hh_l0"]]
            activations += ["linear", "linear"]
        elif kind == "Linear" and layer.bias is not None:
            weights.append(layer.weight.detach().cpu().numpy().copy())
            biases.append(layer.bias.detach().cpu().numpy().copy())
            activations.append("linear")
        elif kind in _ACTIVATION_OF and activations:
            activations[-1] = _ACTIVATION_OF[kind]
        else:
            raise PowerGridError(f"a policy with a layer of kind {kind} cannot be exported; use a plain perceptron")
    if hasattr(module, "pi_encoder"):  # RLlib squashes SAC's means by tanh; spreads are for exploration alone
        n = len(biases[-1]) // 2
        weights[-1], biases[-1], activations[-1] = weights[-1][:n], biases[-1][:n], "tanh"
    standing, graph, proposed = (getattr(module, name, None) for name in ("standing", "graph", "proposed"))
    network = Network(tuple(weights), tuple(biases), tuple(activations), standing, graph, proposed, memory)
    sample = np.random.default_rng(0).uniform(-2, 2, (8, network.width)).astype(np.float32)
    sample = graph.complete(sample) if graph else sample
    if memory:  # as one episode that sees one after the other
        held = network.start(1)
        got = np.concatenate([network.forward(row[None], held) for row in sample])
    else:
        got = network.forward(sample)
    with torch.no_grad():
        expected = _read_module(module, torch.from_numpy(sample)).cpu().numpy()
    if not np.allclose(got, expected[:, : got.shape[1]], rtol=1e-4, atol=1e-5, equal_nan=True):
        raise PowerGridError("the exported policy disagrees with RLlib's own network")
    return network


def _actor_layers(module: Any) -> list[Any]:
    """Return the layers from observation to action, in order."""
    if hasattr(module, "pi_encoder"):
        return [*module.pi_encoder.net.mlp, *module.pi.net.mlp]
    if hasattr(module, "af"):
        return [*module.encoder.net.mlp, *module.af.net.mlp]
    encoder = getattr(module.encoder, "actor_encoder", None) or module.encoder.encoder
    if getattr(module, "memory", 0):
        return [*encoder.layers, encoder.gru, *module.pi.net.mlp]
    return [*(encoder.net.mlp if getattr(module, "graph", None) is None else encoder.layers), *module.pi.net.mlp]


def _read_module(module: Any, observations: Any) -> Any:
    """Return what RLlib's own module makes of observations: what :func:`network_of_module` must agree with."""
    if hasattr(module, "af"):
        return module.af(module.encoder({"obs": observations})["encoder_out"])
    if getattr(module, "memory", 0):
        start = {name: first[None] for name, first in module.get_initial_state().items()}
        batch = {"obs": observations[None], "state_in": start}
        return module.forward_inference(batch)["action_dist_inputs"][0]
    inputs = module.forward_inference({"obs": observations})["action_dist_inputs"]
    if hasattr(module, "pi_encoder"):
        return module.get_inference_action_dist_cls().from_logits(inputs).to_deterministic().sample()
    return inputs


def export_run(
    run_or_checkpoint: str | Path,
    folder: str | Path,
    *,
    format: Literal["onnx", "torchscript"] = "onnx",
    trust: bool = False,
) -> list[Path]:
    """Write a trained policy as ONNX or TorchScript, with ``interface.json``.

    Args:
        run_or_checkpoint: A run folder (its best checkpoint, else its latest), a checkpoint, or a folder written by
            :func:`powergrid.training.export_policy`.
        folder: Where the files go; it is made.
        format: ``"onnx"`` needs the package onnx, ``"torchscript"`` torch.
        trust: Import the environment that a run of someone else names, to describe what its agents see.

    Returns:
        The files: one for each agent, then ``interface.json``.

    Raises:
        PowerGridError: There is no policy, or the format is unknown or its package missing.
    """
    if format not in SUFFIXES:
        raise PowerGridError(describe_unknown("format", format, SUFFIXES))
    policy = load_policy(run_or_checkpoint)
    if policy.fits:
        raise PowerGridError(
            f"{run_or_checkpoint}: a policy that translates between spaces (share_unequal, or dqn and sac on other "
            "than their own) cannot be exported; powergrid.load_policy acts by it"
        )
    tables, target = _describe_run(path_of(run_or_checkpoint), trust=trust), Path(folder)
    make_folder(target)
    write = _write_onnx if format == "onnx" else _write_torchscript
    agents: dict[str, Any] = {}
    for agent, name in policy.policy_of.items():
        file = f"{agent}{SUFFIXES[format]}"
        told = _interface(policy, agent, tables)
        memory = [told["memory"]] if "memory" in told else []
        inputs = {part["name"]: part["shape"][1] for part in (told["input"], *(own["input"] for own in memory))}
        outputs = [part["name"] for part in (*told["outputs"], *(own["output"] for own in memory))]
        with telling(target / file), replacing(target / file) as whole:
            write(_torch_actor(policy, agent), inputs, outputs, whole)
        agents[agent] = {"file": file, "policy": name, **told}
    interface = {
        "format": format,
        "powergrid": powergrid.__version__,
        "scenario": tables.get("scenario"),
        "checkpoint": tables.get("checkpoint"),
        "scaling": HOW_TO_SCALE,
        "agents": agents,
    }
    write_whole(target / INTERFACE_FILE, json.dumps(interface, indent=1, allow_nan=False) + "\n")
    return [*(target / told["file"] for told in agents.values()), target / INTERFACE_FILE]


def _describe_run(run_or_checkpoint: Path, *, trust: bool = False) -> dict[str, Any]:
    """Return what each agent observes and does, from the environment that a run was trained on.

    Returns:
        ``scenario``, ``checkpoint``, and where the environment can describe itself ``observations`` and ``actions``,
        each a list of rows by agent. Empty for a policy that belongs to no run.
    """
    if (run_or_checkpoint / POLICY_FILE).is_file() and not (run_or_checkpoint / STATE_FILE).is_file():
        return {}
    try:
        checkpoint = find_checkpoint(run_or_checkpoint)
        manifest = read_manifest(checkpoint.parent.parent)
    except PowerGridError:  # a checkpoint outside of a run
        return {}
    told: dict[str, Any] = {"scenario": manifest["scenario"], "checkpoint": checkpoint.name}
    if manifest["env"] != OUR_ENV and not trust and not is_ours(checkpoint, trust_claims(manifest)):
        return told
    env: Any = import_env(manifest["env"])(dict(manifest["env_config"]))
    try:
        if hasattr(env, "describe"):
            description = env.describe()
            for table in ("observations", "actions"):
                told[table] = _rows_by_agent(getattr(description, table))
    finally:
        env.close()
    return told


def _rows_by_agent(frame: Any) -> dict[str, list[dict[str, Any]]]:
    by_agent = frame.groupby("agent", sort=False)
    return {agent: json.loads(rows.drop(columns="agent").to_json(orient="records")) for agent, rows in by_agent}


def _interface(policy: Policy, agent: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    """Say what an agent's file takes and gives; units and bounds where the environment told them."""
    space, network = policy.action_spaces[agent], policy.networks[policy.policy_of[agent]]
    width, memory = network.width, network.memory
    outputs = space.spaces if isinstance(space, gym.spaces.Dict) else {"action": space}
    seen, done = (tables.get(table, {}).get(agent) for table in ("observations", "actions"))
    named = {"continuous", "discrete"} if len(outputs) > 1 else set()
    return {
        "input": {"name": INPUT, "shape": ["n", width], "dtype": "float32"},
        "outputs": [_describe_output(name, space) for name, space in outputs.items()],
        **({"memory": _describe_memory(memory.width)} if memory else {}),
        "observations": seen or [{"position": i} for i in range(width)],
        "actions": [
            {
                "output": row["part"] if row["part"] in named else next(iter(outputs)),
                **{name: value for name, value in row.items() if name != "part"},
            }
            for row in done or ()
        ],
    }


def _describe_memory(width: int) -> dict[str, Any]:
    """Say what is remembered from step to step: what is given after one step is put in at the next."""
    input, output = ({"name": name, "shape": ["n", width], "dtype": "float32"} for name in MEMORY)
    return {"input": input, "output": output, "first": 0.0}


def _describe_output(name: str, space: gym.Space[Any]) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Box):
        ends = {name: np.ravel(getattr(space, name)).tolist() for name in ("low", "high")}
        bounds = {name: [x if math.isfinite(x) else None for x in own] for name, own in ends.items()}
        return {"name": name, "shape": ["n", *space.shape], "dtype": "float32", **bounds}
    sizes = position_counts(space)
    shape = ["n"] if isinstance(space, gym.spaces.Discrete) else ["n", len(sizes)]
    return {"name": name, "shape": shape, "dtype": "int64", "n": sizes}


def _write_onnx(actor: Any, inputs: Mapping[str, int], names: Sequence[str], file: Path) -> None:
    """Write an actor as an ONNX graph of standard operators, through torch's own exporter.

    Raises:
        PowerGridError: The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise PowerGridError("to write ONNX, install the package onnx: pip install 'powergrid-dss[export]'") from error
    import torch

    graph = io.BytesIO()
    with warnings.catch_warnings():
        # torch would rather go through torch.export, which takes the package onnxscript and writes opset 18 and newer:
        # runtimes of 2022, which controllers in the field have, do not read it
        warnings.simplefilter("ignore")
        torch.onnx.export(
            actor,
            tuple(torch.zeros(2, width) for width in inputs.values()),
            graph,  # type: ignore[arg-type]
            input_names=list(inputs),
            output_names=list(names),
            dynamic_axes={name: {0: "n"} for name in (*inputs, *names)},
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(onnx.load_from_string(graph.getvalue()), full_check=True)
    file.write_bytes(graph.getvalue())


def _write_torchscript(actor: Any, inputs: Mapping[str, int], names: Sequence[str], file: Path) -> None:
    """Write an actor as TorchScript; several outputs come as a tuple, in the order of ``names``."""
    import torch

    script = io.BytesIO()  # to a file, torch ends the process where the disk is full
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the format; devices in the field still read it
        given = tuple(torch.zeros(2, width) for width in inputs.values())
        traced: Any = torch.jit.trace(actor, given, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, script)
    file.write_bytes(script.getvalue())


def _torch_actor(policy: Policy, agent: str) -> Any:
    """Return a torch module that computes what :meth:`Policy.act_batch` does, filters and scaling included.

    Of a policy with a memory it takes what is remembered after the observations, and gives what is after the actions.
    """
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = policy.networks[policy.policy_of[agent]].torch_module()

        def forward(self, observation: Any, *held: Any) -> Any:
            after = list[Any]()

            def look(seen: Any) -> Any:
                given = self.layers(seen, *held)
                after.extend(given[1:] if held else ())
                return given[0] if held else given

            actions = policy.decide(agent, observation, look, torch)
            parts = (*(actions.values() if isinstance(actions, dict) else (actions,)), *after)
            return parts[0] if len(parts) == 1 else parts

    return Module().eval()
