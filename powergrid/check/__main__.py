"""The process that a check runs in: ``python -m powergrid.check EVENTS FEEDER OPTIONS SECONDS``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from powergrid.check.report import FeederReport
from powergrid.check.sandbox import EventRecorder, limit_process


def main() -> None:
    """Check one feeder and write what is found to the file of events."""
    events, feeder, options, seconds = sys.argv[1:]
    limit_process(float(seconds))
    from powergrid.check.inspection import inspect_feeder  # the engine is loaded within the limits

    recorder = EventRecorder(FeederReport(feeder), Path(events))
    inspect_feeder(feeder, recorder, **json.loads(options))
    recorder.end()


if __name__ == "__main__":
    main()
