"""Dagster's web server behind our login, in Dagster's own process."""
