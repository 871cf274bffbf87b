"""PowerGrid-Bench: twelve frozen tasks, results that say all they came from, and a replay that checks them."""

from __future__ import annotations

from powergrid.evaluation.benchmark.play import Entrant, play_task
from powergrid.evaluation.benchmark.result import Result, read_result
from powergrid.evaluation.benchmark.tasks import Benchmark, Task, read_benchmark
from powergrid.evaluation.benchmark.verify import verify_result

__all__ = ["Benchmark", "Entrant", "Result", "Task", "play_task", "read_benchmark", "read_result", "verify_result"]
