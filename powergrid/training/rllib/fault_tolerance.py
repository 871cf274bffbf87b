"""What an algorithm does about sampling processes: no more of them than find a CPU, and no waiting for dead ones."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

logger = logging.getLogger("powergrid.training")

#: Longest wait for the first process to come back where none is left to sample [s].
ALL_LOST_PATIENCE_S = 60.0
#: What RLlib waits for lost processes when it asks them [s], and how often it asks while others still sample [s]: a
#: process starts anew within 10 s, but where its node is gone it never does, and each question stops the training.
PROBE_S, ASK_EVERY_S = 1.0, 10.0
#: How long CPUs that others hold may take to come free [s]: those of an algorithm that was just stopped do.
FREE_CPUS_PATIENCE_S = 10.0


class KeepsRunners:
    """Start no more env runners than there are free CPUs, and take up lost ones when they answer again.

    RLlib waits for ever, without a message, for an env runner that finds no CPU, as those of a second algorithm do
    beside a first. It also asks the lost ones in every iteration, and waits 30 s for the answer: where a node is lost
    and no CPU is left for its runners, that is for ever. Here they are asked now and then, and waited for only where
    none is left to sample.
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
        wanted, well = env_runner_group.num_remote_env_runners(), env_runner_group.num_healthy_remote_env_runners()
        asked: dict[int, float] = self.__dict__.setdefault("lost_runners_asked_at", {})
        now = time.monotonic()
        if well == wanted or (well and now < asked.get(id(env_runner_group), -math.inf) + ASK_EVERY_S):
            return []
        while True:
            restored: list[int] = super().restore_env_runners(env_runner_group)  # type: ignore[misc]
            if restored or well or time.monotonic() > now + ALL_LOST_PATIENCE_S:
                asked[id(env_runner_group)] = time.monotonic()
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
