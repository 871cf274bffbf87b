"""Write a trained policy for other programs: one ONNX or TorchScript file an agent, and a JSON that says what is what.

The file takes the observations that the environment gives and gives the actions that it takes, deterministic,
filters and scaling included. It trains nothing, starts no Ray and unpickles nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np

import powergrid
from powergrid.errors import PowerGridError, describe_unknown
from powergrid.training.policies.inference import POLICY_FILE, Network, ObservationFilter, Policy, load_policy
from powergrid.training.policies.trust import is_ours
from powergrid.training.runs.checkpoints import STATE_FILE, find_checkpoint
from powergrid.training.runs.run import import_env, read_manifest, trust_claims

INTERFACE_FILE = "interface.json"
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}
OPSET, IR_VERSION = 17, 8  # what runtimes since 2022 read
OUR_ENV = "powergrid.envs.networked:NetworkedGridEnv"
INPUT = "observation"
HOW_TO_SCALE = {
    "observations": "entry = clip(2 * (value - low) / (high - low) - 1, -1, 1)",
    "actions": "value = low + (entry + 1) / 2 * (high - low) where n is null; else the entry is a position 0..n-1",
}


@dataclass(frozen=True)
class Head:
    """One output: which of the network's numbers it is made of, and how.

    Attributes:
        name: ``action``, or the key in a Dict space.
        space: What it must be in.
        start: The first of the network's numbers that it uses.
        width: How many it uses.
    """

    name: str
    space: gym.Space[Any]
    start: int
    width: int

    @property
    def sizes(self) -> list[int]:
        """The number of choices of each discrete entry; empty for a Box."""
        if isinstance(self.space, gym.spaces.Discrete):
            return [int(self.space.n)]
        return [int(n) for n in self.space.nvec] if isinstance(self.space, gym.spaces.MultiDiscrete) else []


@dataclass(frozen=True)
class Actor:
    """All that one agent's file is made of."""

    network: Network
    heads: tuple[Head, ...]
    observation_filter: ObservationFilter | None
    normalize_actions: bool
    clip_actions: bool

    @property
    def width(self) -> int:
        """The number of observations."""
        return int(self.network.weights[0].shape[1])

    def scaling(self, box: gym.spaces.Box) -> tuple[Any, Any] | None:
        """Return the scale and offset from the network's number to the action; None where it is the action."""
        bounded = bool(np.all(box.bounded_below) and np.all(box.bounded_above))
        return (box.high - box.low, box.low) if self.normalize_actions and bounded else None

    def clips(self, box: gym.spaces.Box) -> bool:
        """Tell whether actions are clipped to their bounds."""
        return self.scaling(box) is not None or (self.clip_actions and not self.normalize_actions)


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
        raise PowerGridError(describe_unknown("format", str(format), SUFFIXES))
    policy = load_policy(run_or_checkpoint)
    if policy.fits:
        raise PowerGridError(
            f"{run_or_checkpoint}: a policy that translates between spaces (share_unequal, or dqn and sac on other "
            "than their own) cannot be exported; powergrid.load_policy acts by it"
        )
    tables = describe_run(Path(run_or_checkpoint).expanduser(), trust=trust)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write = write_onnx if format == "onnx" else write_torchscript
    files: list[Path] = []
    agents: dict[str, Any] = {}
    for agent in policy.policy_of:
        actor = actor_of(policy, agent)
        file = target / f"{agent}{SUFFIXES[format]}"
        write(actor, file)
        files.append(file)
        agents[agent] = {
            "file": file.name,
            "policy": policy.policy_of[agent],
            **_interface(actor, tables.get("observations", {}).get(agent), tables.get("actions", {}).get(agent)),
        }
    interface = {
        "format": format,
        "powergrid": powergrid.__version__,
        "scenario": tables.get("scenario"),
        "checkpoint": tables.get("checkpoint"),
        "scaling": HOW_TO_SCALE,
        "agents": agents,
    }
    (target / INTERFACE_FILE).write_text(json.dumps(interface, indent=1, allow_nan=False) + "\n")
    return [*files, target / INTERFACE_FILE]


def actor_of(policy: Policy, agent: str) -> Actor:
    """Take one agent's part out of a policy."""
    network = policy.networks[policy.policy_of[agent]]
    space = policy.action_spaces[agent]
    parts = space.spaces.items() if isinstance(space, gym.spaces.Dict) else [("action", space)]
    outputs = len(network.biases[-1])
    for per_box in (1, 2):  # the means alone, or a spread beside each
        heads: list[Head] = []
        start = 0
        for name, part in parts:
            box = isinstance(part, gym.spaces.Box)
            head = Head(name, part, start, int(np.prod(part.shape or ())) if box else 0)
            heads.append(head if box else Head(name, part, start, sum(head.sizes)))
            start += heads[-1].width * (per_box if box else 1)
        if start == outputs:
            return Actor(
                network, tuple(heads), policy.filters.get(agent), policy.normalize_actions, policy.clip_actions
            )
    raise PowerGridError(f"agent {agent!r}: the network gives {outputs} numbers, which do not fit {space}")


def describe_run(run_or_checkpoint: Path, *, trust: bool = False) -> dict[str, Any]:
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
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(frame.to_json(orient="records")):
        rows.setdefault(row.pop("agent"), []).append(row)
    return rows


def _interface(
    actor: Actor, observations: Sequence[Mapping[str, Any]] | None, actions: Sequence[Mapping[str, Any]] | None
) -> dict[str, Any]:
    """Say what an agent's file takes and gives; units and bounds where the environment told them."""
    seen = observations or [{"position": i} for i in range(actor.width)]
    keys = {"continuous", "discrete"} if len(actor.heads) > 1 else set()
    done: list[dict[str, Any]] = [
        {"output": row["part"] if row["part"] in keys else actor.heads[0].name,
         **{name: value for name, value in row.items() if name != "part"}}
        for row in actions or ()
    ]  # fmt: skip
    return {
        "input": {"name": INPUT, "shape": ["n", actor.width], "dtype": "float32"},
        "outputs": [_describe_head(head) for head in actor.heads],
        "observations": [dict(row) for row in seen],
        "actions": done,
    }


def _describe_head(head: Head) -> dict[str, Any]:
    if isinstance(head.space, gym.spaces.Box):
        bounds = {name: [_finite(x) for x in np.ravel(getattr(head.space, name)).tolist()] for name in ("low", "high")}
        return {"name": head.name, "shape": ["n", *head.space.shape], "dtype": "float32", **bounds}
    shape = ["n"] if isinstance(head.space, gym.spaces.Discrete) else ["n", len(head.sizes)]
    return {"name": head.name, "shape": shape, "dtype": "int64", "n": head.sizes}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_onnx(actor: Actor, file: Path) -> None:
    """Write an actor as an ONNX graph of standard operators.

    Raises:
        PowerGridError: The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise PowerGridError("to write ONNX, install the package onnx: pip install 'powergrid-dss[export]'") from error
    graph = _OnnxGraph(onnx)
    x = INPUT
    if actor.observation_filter is not None:
        seen = actor.observation_filter
        x = graph.add("Cast", x, to=onnx.TensorProto.DOUBLE)
        x = graph.add("Div", graph.add("Sub", x, graph.constant(seen.mean)), graph.constant(seen.divisor))
        limit = np.float64(seen.clip)
        x = graph.add("Clip", x, graph.constant(-limit), graph.constant(limit))
        x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
    network = actor.network
    for weight, bias, activation in zip(network.weights, network.biases, network.activations, strict=True):
        x = graph.add("Gemm", x, graph.constant(weight), graph.constant(bias), transB=1)
        if activation == "swish":
            x = graph.add("Mul", x, graph.add("Sigmoid", x))
        elif activation != "linear":
            x = graph.add({"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}[activation], x)
    for head in actor.heads:
        graph.add("Identity", _onnx_head(graph, actor, head, x), output=head.name)
    helper = onnx.helper
    outputs = []
    for head in actor.heads:
        told = _describe_head(head)
        kind = onnx.TensorProto.FLOAT if told["dtype"] == "float32" else onnx.TensorProto.INT64
        outputs.append(helper.make_tensor_value_info(head.name, kind, told["shape"]))
    taken = helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["n", actor.width])
    made = helper.make_graph(graph.nodes, "policy", [taken], outputs, graph.constants)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        producer_name="powergrid", producer_version=powergrid.__version__,
    )  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))


class _OnnxGraph:
    """Gather nodes and constants, and name what lies between them."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node and give its output's name."""
        name = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Add a constant and give its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def slice(self, x: str, start: int, end: int) -> str:
        """Take columns ``start`` to ``end``."""
        ends = [self.constant(np.array([value], np.int64)) for value in (start, end, 1)]
        return self.add("Slice", x, *ends)


def _onnx_head(graph: _OnnxGraph, actor: Actor, head: Head, x: str) -> str:
    if isinstance(head.space, gym.spaces.Discrete):
        return graph.add("ArgMax", graph.slice(x, head.start, head.start + head.width), axis=1, keepdims=0)
    if head.sizes:
        edges = head.start + np.cumsum([0, *head.sizes])
        picks = [
            graph.add("ArgMax", graph.slice(x, a, b), axis=1, keepdims=1) for a, b in itertools.pairwise(edges.tolist())
        ]
        return graph.add("Concat", *picks, axis=1)
    box: Any = head.space
    x = graph.slice(x, head.start, head.start + head.width)
    if len(box.shape) != 1:
        x = graph.add("Reshape", x, graph.constant(np.array([-1, *box.shape], np.int64)))
    scaling = actor.scaling(box)
    if scaling is not None:
        x = graph.add("Mul", graph.add("Add", x, graph.constant(np.float32(1))), graph.constant(scaling[0]))
        x = graph.add("Add", graph.add("Div", x, graph.constant(np.float32(2))), graph.constant(scaling[1]))
    if actor.clips(box):
        x = graph.add("Min", graph.add("Max", x, graph.constant(box.low)), graph.constant(box.high))
    return x


def write_torchscript(actor: Actor, file: Path) -> None:
    """Write an actor as TorchScript; a Dict space's parts come as a tuple, in the order of ``interface.json``."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the format; devices in the field still read it
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            _torch_module(actor), torch.zeros(2, actor.width), check_trace=False
        )
        torch.jit.save(traced, str(file))


def _torch_module(actor: Actor) -> Any:
    """Return a torch module that computes what :meth:`Policy.act_batch` does."""
    import torch

    functions: dict[str, Any] = {
        "tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "elu": torch.nn.ELU, "swish": torch.nn.SiLU,
    }  # fmt: skip
    layers: list[Any] = []
    network = actor.network
    for weight, bias, activation in zip(network.weights, network.biases, network.activations, strict=True):
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, *([functions[activation]()] if activation != "linear" else [])]

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(*layers)

        def forward(self, observation: Any) -> Any:
            x = observation
            if actor.observation_filter is not None:
                seen = actor.observation_filter
                x = (x.double() - torch.from_numpy(seen.mean)) / torch.from_numpy(seen.divisor)
                x = x.clamp(-seen.clip, seen.clip).float()
            x = self.layers(x)
            outputs = tuple(_torch_head(actor, head, x) for head in actor.heads)
            return outputs[0] if len(outputs) == 1 else outputs

    return Module().eval().requires_grad_(False)


def _torch_head(actor: Actor, head: Head, x: Any) -> Any:
    import torch

    x = x[:, head.start : head.start + head.width]
    if isinstance(head.space, gym.spaces.Discrete):
        return x.argmax(1)
    if head.sizes:
        return torch.stack([part.argmax(1) for part in x.split(head.sizes, 1)], 1)
    box: Any = head.space
    low, high = torch.from_numpy(box.low), torch.from_numpy(box.high)
    x = x.reshape(-1, *box.shape)
    if actor.scaling(box) is not None:
        x = low + (x + 1.0) * (high - low) / 2.0
    return torch.minimum(torch.maximum(x, low), high) if actor.clips(box) else x
