"""Replays: dead letters tried again by runs of their own."""
