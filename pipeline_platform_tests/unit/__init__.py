"""Pure functions: no server, no clock, no network."""
