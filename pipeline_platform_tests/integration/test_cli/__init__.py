"""The command line against real servers and a real gateway."""
