"""What an algorithm does about sampling processes that died: it neither waits for them nor forgets them."""

from __future__ import annotations

from typing import Any

#: Longest wait for the first process to come back where none is left to sample [s].
ALL_LOST_PATIENCE_S = 60.0
#: What RLlib waits for all lost processes once one has answered [s].
PROBE_S = 1.0


class RestoresRunners:
    """Take up lost env runners when they answer again, without waiting while others sample.

    RLlib asks each lost one, in every iteration, and waits 30 s for the answer: where a node is lost and no CPU is
    left for its runners, that is for ever. Where none samples there is nothing to go on with, and this waits.
    """

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Give the runners that came back, with their state set; see RLlib's method of the same name."""
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


def _is_well(answer: Any) -> bool:
    """Whether a process answered, and not Ray in its place that it is gone."""
    import ray

    try:
        ray.get(answer)
    except ray.exceptions.RayError:
        return False
    return True
