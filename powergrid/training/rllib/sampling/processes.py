"""How many processes sample, and what lost, hung and surplus ones cost: no more than the steps under way."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

logger = logging.getLogger("powergrid.training")

#: How long an algorithm without any process left to sample waits for the first one to come back [s].
ALL_LOST_PATIENCE_S = 60.0
#: What RLlib waits in every iteration for lost processes to answer [s]. Those that are back answer within milliseconds;
#: one whose node is gone never does, and with RLlib's 30 s each iteration takes so much longer.
PROBE_S = 0.1
#: How long a process that did not bring its sample in time has to answer at all [s], at least.
HUNG_PATIENCE_S = 5.0
#: How long CPUs that others hold may take to come free [s]: those of an algorithm that was just stopped do.
FREE_CPUS_PATIENCE_S = 10.0


def tolerate_faults(config: Any) -> None:
    """Set that a failure costs the steps under way and no more: RLlib's own settings stall, or end, the training."""
    config.fault_tolerance(
        restart_failed_env_runners=True,
        restart_failed_sub_environments=True,
        delay_between_env_runner_restarts_s=0,  # in RLlib's 60 s the whole iteration stalls
        env_runner_health_probe_timeout_s=PROBE_S,
    )


class KeepsRunners:
    """Start no more env runners than there are free CPUs, end those that hang, and wait where none is left to sample.

    RLlib waits for ever, without a message, for an env runner that finds no CPU, as those of a second algorithm do
    beside a first. Where its only env runner has died it goes on with iterations that learn from nothing until another
    is up, within about 10 s. One that hangs it takes for healthy, and waits for in every iteration.
    """

    config: Any
    _last_look_s: float | None = None  # when env runners were last known to be idle, on the monotonic clock

    def setup(self, config: Any) -> None:
        """Build what RLlib builds, with the env runners that find a CPU; a sentence says how many those are."""
        runners, warning = _fit_free_cpus(config)
        if warning:
            logger.warning(warning)
            config = config.copy(copy_frozen=False)
            config.num_env_runners = runners
            config.freeze()
            self.config = config
        super().setup(config)  # type: ignore[misc]

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Return the runners that came back, with their state set; see RLlib's method of the same name."""
        self._end_hung(env_runner_group)
        deadline = time.monotonic() + ALL_LOST_PATIENCE_S
        while True:
            restored: list[int] = super().restore_env_runners(env_runner_group)  # type: ignore[misc]
            all_lost = env_runner_group.num_healthy_remote_env_runners() < min(
                1, env_runner_group.num_remote_env_runners()
            )
            if not all_lost or time.monotonic() > deadline:
                self._last_look_s = time.monotonic()
                return restored

    def _end_hung(self, group: Any) -> None:
        """Kill the env runners that still do what they were asked longer ago than ``sample_timeout_s``; others come."""
        import ray

        timeout_s, since = self.config.sample_timeout_s, self._last_look_s
        # Only a sample that somebody did not bring makes an iteration last that long, or much to learn.
        if not timeout_s or since is None or time.monotonic() - since < timeout_s:
            return
        asked = group.healthy_env_runner_ids()
        answered = group.foreach_env_runner(
            _number_of, local_env_runner=False, timeout_seconds=max(HUNG_PATIENCE_S, 0.1 * timeout_s)
        )
        for number in sorted(set(asked) - set(answered)):
            logger.warning(
                "Sampling process %d gave nothing for sample_timeout_s = %g s and does not answer: it is killed and "
                "started again. Where a sample takes that long, raise sample_timeout_s or lower "
                "rollout_fragment_length.",
                number,
                timeout_s,
            )
            manager = group._worker_manager
            ray.kill(manager.actors()[number], no_restart=False)
            manager.set_actor_state(number, healthy=False)


def _number_of(runner: Any) -> int:
    return int(runner.worker_index)


def _fit_free_cpus(config: Any) -> tuple[int, str | None]:
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


def available_cpus() -> int:
    """Count the CPUs that Ray has, or will have once it starts."""
    import ray

    if ray.is_initialized():
        return max(1, int(ray.cluster_resources().get("CPU", 1)))
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def fit_env_runners(wanted: int | None, cpus: int, reserved: int = 0) -> tuple[int, str | None]:
    """Choose the number of sampling processes that the CPUs can run.

    RLlib waits for ever, without a message, for a process that finds no free CPU.

    Args:
        wanted: The number asked for, None for any.
        cpus: What Ray has.
        reserved: CPUs that must be left, such as the one that a trial of Tune takes for itself.

    Returns:
        The number, and a sentence where it is less than what was wanted.
    """
    if wanted is None:  # beside a learner on two CPUs, processes gained a tenth and cost 10 s at the start
        return (0 if cpus <= 2 else min(cpus - 1, 8)), None
    fitting = max(cpus - reserved, 0)
    if wanted <= fitting:
        return wanted, None
    beside = f" beside {reserved} for Tune" if reserved else ""
    return fitting, f"{wanted} env runners need {wanted} CPUs{beside} and Ray has {cpus}: training with {fitting}."
