"""A trained network as a service over HTTP, and the page that uses it."""
