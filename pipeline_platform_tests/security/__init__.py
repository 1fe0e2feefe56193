"""Attacks, and the controls that hold them off."""
