"""Bring a scenario to a feeder that it was not made for: by name, by a map, by rules; all that has no place is told."""
