"""Attacks that have to fail: real servers, real HTTP on loopback, bounds by size and growth."""
