"""The artefact of a run: weights, class names and preprocessing in one folder."""
