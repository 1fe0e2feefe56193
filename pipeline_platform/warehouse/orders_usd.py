"""Orders in USD by day, country and product: the stream's minutes times the closes of currencies.

Where there is no rate the row says so and has no amount: a missing rate is never taken for 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa

from pipeline_platform.warehouse.engine import warehouse_errors

RATE_DAYS = 7  # a weekend and the longest holidays of the ECB: how old a rate may be

_VALUES = (*("orders", "quantity", "amount", "currency", "rate", "rate_day", "rate_symbol", "amount_usd", "problem"),)
# Exact sums: doubles as numerics, so that the order of rows makes no difference.
_UPSERT = sa.text(
    f"""
    with countries as (
        select * from unnest(cast(:countries as text[]), cast(:currencies as text[])) as c (country, currency)
    ), sold as (
        select (window_start at time zone 'UTC')::date as day, country, product, sum(events)::bigint as orders,
            sum(quantity_sum::numeric)::double precision as quantity,
            coalesce(sum(amount_sum::numeric), 0) as amount
        from orders_1m
        where window_start >= cast(:first as date)::timestamp at time zone 'UTC'
            and window_start < (cast(:last as date) + 1)::timestamp at time zone 'UTC'
        group by 1, 2, 3
    ), asked as (
        select distinct s.day, c.currency from sold s join countries c using (country) where c.currency <> 'USD'
    ), rates as (
        select a.day, a.currency, r.* from asked a, lateral (
            select case when d.symbol = a.currency || '-USD' then d.price else 1 / d.price end as rate,
                d.day as rate_day, d.symbol as rate_symbol
            from price_days d
            where d.symbol in (a.currency || '-USD', 'USD-' || a.currency) and d.price > 0
                and d.day <= a.day and d.day > a.day - {RATE_DAYS}
            order by d.day desc, d.symbol limit 1
        ) r
        union all select distinct day, 'USD', 1, day, null from sold
    ), rows as (
        select s.day, s.country, s.product, s.orders, s.quantity, trim_scale(s.amount) as amount, c.currency,
            r.rate, r.rate_day, r.rate_symbol, trim_scale(round(s.amount * r.rate, 6)) as amount_usd,
            case when c.currency is null then 'no currency for the country ' || s.country
                when r.rate is null then 'no rate of ' || c.currency || ' within {RATE_DAYS} days' end as problem
        from sold s left join countries c using (country) left join rates r using (day, currency)
    )
    insert into orders_usd as t (day, country, product, {", ".join(_VALUES)}, computed_at, run_id)
    select day, country, product, {", ".join(_VALUES)}, now(), :run_id from rows order by day, country, product
    on conflict (day, country, product) do update set
        {", ".join(f"{name} = excluded.{name}" for name in _VALUES)},
        computed_at = excluded.computed_at, run_id = excluded.run_id
    where ({", ".join(f"t.{name}" for name in _VALUES)})
        is distinct from ({", ".join(f"excluded.{name}" for name in _VALUES)})
    """
)
_COUNT = sa.text(
    """
    select day, count(*) as rows, count(*) filter (where problem is not null) as problems, sum(amount_usd) as amount_usd
    from orders_usd where day between :first and :last group by day
    """
)


@dataclass(frozen=True)
class Mart:
    """What is there of the days now: rows by day, those without an amount in USD, and how many were written."""

    by_day: Mapping[date, int]
    problems: int
    changed: int
    amount_usd: float | None

    @property
    def rows(self) -> int:
        """The rows of all days."""
        return sum(self.by_day.values())


def recompute_orders(
    engine: sa.Engine, first: date, last: date, currencies: Mapping[str, str], *, run_id: str | None = None
) -> Mart:
    """Computes the days from `first` to `last`; a row that does not change is not written."""
    values = {"countries": list(currencies), "currencies": list(currencies.values()), "run_id": run_id}
    days = {"first": first, "last": last}
    with warehouse_errors(), engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('orders_usd'))"))
        changed = connection.execute(_UPSERT, values | days).rowcount
        there = connection.execute(_COUNT, days).all()
    amounts = [float(row.amount_usd) for row in there if row.amount_usd is not None]
    return Mart(
        {row.day: row.rows for row in there},
        sum(row.problems for row in there),
        changed,
        sum(amounts) if amounts else None,
    )
