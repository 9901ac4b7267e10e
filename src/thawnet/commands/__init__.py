"""A module for every word after `thawnet`: its options, its checks, what it prints."""
