"""Run folders: train, resume, tune, record, show."""
