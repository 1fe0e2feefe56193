"""The embedded stack on one machine: servers, supervisor, demo load."""
