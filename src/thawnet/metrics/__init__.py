"""Metrics of a classifier; no torch, no HTML."""
