"""Write a trained policy for other programs: one ONNX or TorchScript file an agent, and a JSON that says what is what.

The file takes the observations that the environment gives and gives the actions that it takes, deterministic,
filters and scaling included. It trains nothing, starts no Ray and unpickles nothing.
"""

from __future__ import annotations

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
from powergrid.training.runs.checkpoints import STATE_FILE, find_checkpoint, is_ours
from powergrid.training.runs.records import read_manifest
from powergrid.training.runs.train import import_env, trust_claims

INTERFACE_FILE = "interface.json"
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}
OPSET = 17  # what runtimes since 2022 read
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
    agents: dict[str, Any] = {}
    for agent, name in policy.policy_of.items():
        actor, file = actor_of(policy, agent), f"{agent}{SUFFIXES[format]}"
        write(actor, target / file)
        rows = (tables.get(table, {}).get(agent) for table in ("observations", "actions"))
        agents[agent] = {"file": file, "policy": name, **_interface(actor, *rows)}
    interface = {
        "format": format,
        "powergrid": powergrid.__version__,
        "scenario": tables.get("scenario"),
        "checkpoint": tables.get("checkpoint"),
        "scaling": HOW_TO_SCALE,
        "agents": agents,
    }
    (target / INTERFACE_FILE).write_text(json.dumps(interface, indent=1, allow_nan=False) + "\n")
    return [*(target / told["file"] for told in agents.values()), target / INTERFACE_FILE]


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
    """Write an actor as an ONNX graph of standard operators, through torch's own exporter.

    Raises:
        PowerGridError: The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise PowerGridError("to write ONNX, install the package onnx: pip install 'powergrid-dss[export]'") from error
    import torch

    names = [head.name for head in actor.heads]
    with warnings.catch_warnings():
        # torch would rather go through torch.export, which takes the package onnxscript and writes opset 18 and newer:
        # runtimes of 2022, which controllers in the field have, do not read it
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch_actor(actor),
            (torch.zeros(2, actor.width),),
            str(file),
            input_names=[INPUT],
            output_names=names,
            dynamic_axes={name: {0: "n"} for name in (INPUT, *names)},
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(onnx.load(str(file)), full_check=True)


def write_torchscript(actor: Actor, file: Path) -> None:
    """Write an actor as TorchScript; a Dict space's parts come as a tuple, in the order of ``interface.json``."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the format; devices in the field still read it
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            torch_actor(actor), torch.zeros(2, actor.width), check_trace=False
        )
        torch.jit.save(traced, str(file))


def torch_actor(actor: Actor) -> Any:
    """Return a torch module that computes what :meth:`Policy.act_batch` does, filters and scaling included."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = actor.network.torch_module()

        def forward(self, observation: Any) -> Any:
            x = observation
            if actor.observation_filter is not None:
                seen = actor.observation_filter
                x = (x.double() - torch.from_numpy(seen.mean)) / torch.from_numpy(seen.divisor)
                x = x.clamp(-seen.clip, seen.clip).float()
            x = self.layers(x)
            outputs = tuple(_torch_head(actor, head, x) for head in actor.heads)
            return outputs[0] if len(outputs) == 1 else outputs

    return Module().eval()


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
    scales = actor.normalize_actions and bool(np.all(box.bounded_below) and np.all(box.bounded_above))
    if scales:
        x = low + (x + 1.0) * (high - low) / 2.0
    clips = scales or (actor.clip_actions and not actor.normalize_actions)
    return torch.minimum(torch.maximum(x, low), high) if clips else x
