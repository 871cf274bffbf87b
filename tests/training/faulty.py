"""A real environment on which one thing goes wrong, once."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path
from typing import Any

from powergrid.envs import NetworkedGridEnv


class FaultyGridEnv(NetworkedGridEnv):
    """Do what ``fault`` says ("kill" or "raise") in step 5 of worker ``on_worker``, unless there is ``marker``."""

    def __init__(self, config: Any) -> None:
        given = copy.copy(config)
        self._fault, self._marker = given.pop("fault"), Path(given.pop("marker"))
        self._due_in = 5 if getattr(config, "worker_index", 0) == given.pop("on_worker") else -1
        super().__init__(given)

    def step(self, actions: Any) -> Any:
        self._due_in -= 1
        if self._due_in == 0 and not self._marker.exists():
            self._marker.write_text(str(os.getpid()))
            if self._fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the inverter's link is gone")
        return super().step(actions)
