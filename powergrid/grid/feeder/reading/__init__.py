"""From a feeder's files to the statements that the engine is handed: what is understood, and what is refused."""
