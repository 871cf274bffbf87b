"""Speed, memory and scale: ``powergrid bench``, ``python benchmarks/x.py`` or ``python -m benchmarks.x``."""
