"""Trained policies without Ray: extract, act, export."""
