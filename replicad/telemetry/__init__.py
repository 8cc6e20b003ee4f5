"""Logs, metrics and the service manager's socket: what the program says about itself."""
