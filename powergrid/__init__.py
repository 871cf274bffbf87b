"""PowerGrid: multi-agent reinforcement learning on OpenDSS feeders."""

__version__ = "0.1.0"
