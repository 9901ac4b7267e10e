"""Shared base of all packages: errors, text, files, console; nothing here is about images."""
