"""The frozen layers: their runtime, the cache of their outputs, and its readers."""
