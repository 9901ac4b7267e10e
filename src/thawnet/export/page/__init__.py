"""A trained network as a page that needs no server: files of the page, and who computes in it."""
