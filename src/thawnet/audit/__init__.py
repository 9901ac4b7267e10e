"""Audit of a data set: damage, copies, leaks and imbalance, before training."""
