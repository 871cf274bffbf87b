"""The physics: what does the feeder do? Knows no agents, observations or rewards."""
