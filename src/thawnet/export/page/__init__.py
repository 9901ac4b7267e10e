"""A trained network as a page that needs no server: its files, and what computes in it."""
