"""Housekeeping of the warehouse."""
