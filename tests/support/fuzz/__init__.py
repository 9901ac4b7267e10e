"""Readers of something from outside, their valid inputs, and how these are spoilt."""
