"""Alerts on their way out, as runs that people can look at."""
