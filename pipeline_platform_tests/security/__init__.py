"""Attacks that were found or feared, each as a bounded test on loopback."""
