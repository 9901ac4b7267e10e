"""Network access: everything that leaves this machine."""
