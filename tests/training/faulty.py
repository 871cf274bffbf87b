"""A real environment on which one thing goes wrong, once."""

from __future__ import annotations

import copy
import os
import signal
import time
from pathlib import Path
from typing import Any

from powergrid.envs import NetworkedGridEnv
from tests.training.toy import ToyGridEnv


class FaultyGridEnv(NetworkedGridEnv):
    """Do what ``fault`` says (kill, hang or raise) in step 5 of worker ``on_worker``, unless there is ``marker``."""

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
            if self._fault == "hang":
                time.sleep(3600.0)
            raise RuntimeError("the inverter's link is gone")
        return super().step(actions)


class MortalToyEnv(ToyGridEnv):
    """Kill the worker's process in the fifth step, as often as ``deaths`` says; each leaves a file in ``where``."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._mortal = bool(getattr(config, "worker_index", 0))  # the driver has an environment too

    def step(self, actions: Any) -> Any:
        place = Path(self.config["where"])
        if self._mortal and self._t == 5:
            died = len(list(place.glob("death-*")))
            if died < self.config["deaths"]:
                (place / f"death-{died}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().step(actions)
