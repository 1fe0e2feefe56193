"""The source `demo`: the local price server of `up --demo`, in Binance's shape. Its prices are made up."""

from __future__ import annotations

from pipeline_platform.sources.binance import Binance


class Demo(Binance):
    """A server on this machine; its prices are a seeded random walk and never mixed with real ones."""

    base_url = "http://127.0.0.1:8010"
