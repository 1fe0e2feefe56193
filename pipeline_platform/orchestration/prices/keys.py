"""The assets of prices by name, and what Dagster shows of their views."""

from __future__ import annotations

from typing import Any

import dagster as dg

from pipeline_platform.warehouse.price_views import PRICE_VIEWS

GROUP = "prices"
QUOTES, CANDLES, DAILY = (dg.AssetKey(["prices", name]) for name in ("quotes", "candles", "daily"))
ORDERS_USD = dg.AssetKey("orders_usd_1d")


def view_metadata(view: str) -> dict[str, Any]:
    """The table's name and columns."""
    shown = next(each for each in PRICE_VIEWS if each.name == view)
    columns = [dg.TableColumn(each.name, each.type, description=each.comment or None) for each in shown.columns]
    return {"dagster/table_name": f"warehouse.public.{view}", "dagster/column_schema": dg.TableSchema(columns)}
