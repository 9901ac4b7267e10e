"""The commands of `thawnet`, a module each: options, checks and output."""
