"""The gateway over real servers and real HTTP."""
