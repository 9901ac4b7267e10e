"""Training: setup, the two phases, finish; one state that a checkpoint saves whole."""
