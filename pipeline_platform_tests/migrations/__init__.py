"""Migrations: from empty to the newest, and a stream's tables through the life of its spec."""
