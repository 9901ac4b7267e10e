"""Sources of labelled images: a module for each form that data comes in."""
