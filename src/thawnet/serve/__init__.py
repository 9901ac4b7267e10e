"""An HTTP service for a trained network, and its web page."""
