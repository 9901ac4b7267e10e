"""The base of every room: errors, text, files, console; nothing here knows of images."""
