"""The network that ships with the package; README.md beside it is its model card."""
