"""The frozen layers: what runs them, what is kept of them, what reads it."""
