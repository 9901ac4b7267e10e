"""From a name or a path to seeded training batches: sources, the image store, views."""
