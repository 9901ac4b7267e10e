"""Numbers that a classifier is judged by; no torch, no HTML."""
