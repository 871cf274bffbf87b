"""What an algorithm does about sampling processes: no more of them than find a CPU, and no waiting for dead ones."""

from __future__ import annotations

import logging
import time
from typing import Any

logger = logging.getLogger("powergrid.training")

#: Longest wait for the first process to come back where none is left to sample [s].
ALL_LOST_PATIENCE_S = 60.0
#: What RLlib waits for all lost processes once one has answered [s].
PROBE_S = 1.0
#: How long CPUs that others hold may take to come free [s]: those of an algorithm that was just stopped do.
FREE_CPUS_PATIENCE_S = 10.0


class KeepsRunners:
    """Start no more env runners than there are free CPUs, and take up lost ones when they answer again.

    RLlib waits for ever, without a message, for an env runner that finds no CPU, as those of a second algorithm do
    beside a first. It also asks each lost one, in every iteration, and waits 30 s for the answer: where a node is lost
    and no CPU is left for its runners, that is for ever. Where none samples there is nothing to go on with, and this
    waits.
    """

    config: Any

    def setup(self, config: Any) -> None:
        """Build what RLlib builds, with the env runners that find a CPU; a sentence says how many those are."""
        runners, warning = fit_free_cpus(config)
        if warning:
            logger.warning(warning)
            config = config.copy(copy_frozen=False)
            config.num_env_runners = runners
            config.freeze()
            self.config = config
        super().setup(config)  # type: ignore[misc]

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Return the runners that came back, with their state set; see RLlib's method of the same name."""
        import ray

        manager = env_runner_group._worker_manager
        lost = [runner for runner in manager.actor_ids() if not manager.is_actor_healthy(runner)]
        asked: dict[Any, Any] = self.__dict__.setdefault("_asked_lost_runners", {})
        if lost:
            actors = manager.actors()
            for runner in lost:
                key = (id(env_runner_group), runner)
                if key not in asked:
                    asked[key] = actors[runner].ping.remote()
            keys = [(id(env_runner_group), runner) for runner in lost]
            waits = 0.0 if manager.num_healthy_actors() else ALL_LOST_PATIENCE_S
            answered, _ = ray.wait([asked[key] for key in keys], num_returns=1, timeout=waits)
            back = False
            for key in keys:
                if asked[key] in answered:
                    back = _is_well(asked.pop(key)) or back
            if not back:
                return []
        restored: list[int] = super().restore_env_runners(env_runner_group)  # type: ignore[misc]
        return restored


def fit_free_cpus(config: Any) -> tuple[int, str | None]:
    """Choose the number of env runners that find a free CPU now, or soon; inside a trial of Tune, all of them do.

    Returns:
        The number, and a sentence where it is less than what the configuration says.
    """
    import ray

    wanted, each = int(config.num_env_runners or 0), float(config.num_cpus_per_env_runner or 0)
    if not wanted or not each or not ray.is_initialized() or ray.util.get_current_placement_group() is not None:
        return wanted, None
    deadline = time.monotonic() + FREE_CPUS_PATIENCE_S
    while (free := float(ray.available_resources().get("CPU", 0.0))) < wanted * each and time.monotonic() < deadline:
        time.sleep(0.1)
    fitting = int(free / each)
    if fitting >= wanted:
        return wanted, None
    total = float(ray.cluster_resources().get("CPU", 0.0))
    return fitting, (
        f"{wanted} env runners need {wanted * each:g} CPUs, and {free:g} of Ray's {total:g} are free: training with "
        f"{fitting}. For more, stop what holds the others (another algorithm's stop()), or set num_env_runners."
    )


def _is_well(answer: Any) -> bool:
    """Whether a process answered, and not Ray in its place that it is gone."""
    import ray

    try:
        ray.get(answer)
    except ray.exceptions.RayError:
        return False
    return True
