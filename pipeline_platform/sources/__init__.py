"""Prices of the outside world: one file a source, all with the same shape inwards."""
