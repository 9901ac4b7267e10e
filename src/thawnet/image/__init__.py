"""From bytes to pixels, with Pillow and numpy alone: the same code for training and inference."""
