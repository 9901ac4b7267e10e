"""What a run would take here: minutes, memory, disk."""
