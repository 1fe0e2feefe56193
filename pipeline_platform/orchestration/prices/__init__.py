"""Prices: quotes and candles of the plan's sources, days over all sources, and orders in USD."""
