"""What several tests use: a module per kind. Fixtures stand in conftest.py."""
