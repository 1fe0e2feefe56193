"""Attacks of the security audit and their siblings, bounded, against real servers."""
