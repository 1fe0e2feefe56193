"""The outbox's way out: which alert is owed to which route, who sends it, and what became of that.

A delivery is claimed before it is sent, in a transaction of its own, and settled afterwards in another: nothing is
locked while a receiver takes its time. A sender that dies in between leaves a claim that runs out; the message is then
sent again. So a receiver is told at least once, and twice only when a sender dies after it had been told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.alerts import REFUSALS, Notice, Outcome, Phase, Refused, Rule, Sent, pause
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.schema import alerts
from pipeline_platform.warehouse.text import storable

CLAIM_SECONDS = 60.0  # longer than a message may take to be sent
MOST = 2_000  # alerts in one message, most of them as a count
LOOK_BACK = timedelta(days=1)  # an alert that was over before it was looked at is told no later than this

_ONE_AT_A_TIME = sa.text("select pg_advisory_xact_lock(hashtext('pipeline alert deliveries'))")
# The routes' rules as rows. Every statement below begins with it.
_RULES = """
with rules as (
    select * from jsonb_to_recordset(cast(:rules as jsonb)) as rule(
        route text, streams text[], kinds text[], severities text[], digest_seconds float8, renotify_seconds float8)
)
"""
# A brief alert, one that is over within the digest window, is told to nobody. It is a function of the alert alone.
_BRIEF = "(a.resolved_at is not null and a.resolved_at <= a.raised_at + make_interval(secs => r.digest_seconds))"

# Owed: raises that match, from the partial index of open alerts and the recent ones by time. A route without any
# delivery so far is new, and is told only what is open.
_OWE = f"""
insert into alert_deliveries (alert_id, phase, route, state)
{_RULES}, known_rules as materialized (
    select r.*, exists (select from alert_deliveries d where d.route = r.route) as known from rules r
)
select a.id, 'raised', r.route, 'pending'
from known_rules r
    join alerts a on a.severity = any(r.severities) and (r.streams is null or a.stream = any(r.streams))
        and (r.kinds is null or a.kind = any(r.kinds))
where (a.resolved_at is null
        or (a.last_raised_at > :since and r.known))
    and not {_BRIEF}
    and not exists (select from alert_deliveries d where (d.alert_id, d.phase, d.route) = (a.id, 'raised', r.route))
on conflict do nothing
"""
# Owed: a recovery to each route that was told of the raise.
_OWE_RECOVERY = f"""
insert into alert_deliveries (alert_id, phase, route, state)
{_RULES}
select a.id, 'resolved', r.route, 'pending'
from rules r
    join alert_deliveries d on d.route = r.route and d.phase = 'raised' and d.state = 'sent'
    join alerts a on a.id = d.alert_id
where a.resolved_at > :since
    and not exists (select from alert_deliveries s where (s.alert_id, s.phase, s.route) = (a.id, 'resolved', r.route))
on conflict do nothing
"""
# Again: an open alert that was raised once more, and was told of long enough ago.
_OWE_AGAIN = f"""
{_RULES}
update alert_deliveries d set state = 'pending', attempts = 0, refusals = 0, not_before = null
from rules r, alerts a
where d.route = r.route and a.id = d.alert_id and d.phase = 'raised' and d.state in ('sent', 'dropped')
    and a.resolved_at is null and a.last_raised_at > coalesce(d.sent_at, d.not_before)
    and coalesce(d.sent_at, d.not_before) + make_interval(secs => r.renotify_seconds) <= :now
"""
# No longer owed: what was over at once, and a repeat that recovered before it was sent (its first telling was).
_FORGET = f"""
{_RULES}
update alert_deliveries d set
    state = case when d.sent_at is null then 'dropped' else 'sent' end,
    error = case when d.sent_at is null then 'It was over within the digest window.' else d.error end,
    not_before = null
from rules r, alerts a
where d.route = r.route and d.state = 'pending' and a.id = d.alert_id and d.phase = 'raised'
    and (d.not_before is null or d.not_before <= :now) and a.resolved_at is not null
    and (d.sent_at is not null or (d.attempts = 0 and {_BRIEF}))
"""
_DUE = f"""
{_RULES}
select r.route from rules r
    join alert_deliveries d on d.route = r.route and d.state = 'pending'
    join alerts a on a.id = d.alert_id
group by r.route, r.digest_seconds
having bool_and(d.not_before is null or d.not_before <= :now)
    and min(case d.phase when 'raised' then a.raised_at else a.resolved_at end)
        + make_interval(secs => r.digest_seconds) <= :now
order by r.route
"""
_CLAIM = """
select a.id, a.kind, a.severity, a.stream, a.title, a.body, a.sample, a.times,
    a.raised_at, a.last_raised_at, a.resolved_at, d.phase, d.attempts, d.not_before
from alert_deliveries d join alerts a on a.id = d.alert_id
where d.route = :route and d.state = 'pending'
order by array_position(array['critical', 'warning', 'info'], a.severity), a.raised_at, a.id
limit :most
for update of d skip locked
"""
# A claim is the deliveries at their number of attempts: who has claimed since has counted on.
_MINE = """
from unnest(cast(:ids as bigint[]), cast(:phases as text[]), cast(:tries as int[])) mine(alert_id, phase, attempts)
where (d.alert_id, d.phase, d.route) = (mine.alert_id, mine.phase, :route) and d.state = 'pending'
"""
_TAKE = f"update alert_deliveries d set attempts = d.attempts + 1, not_before = :until {_MINE}"
# Each delivery by itself: a new one that shares a claim with one refused for a day has its own day.
_SETTLE = f"""
update alert_deliveries d set error = :error, refusals = d.refusals + :refused,
    state = case when d.refusals + :refused >= {REFUSALS} then 'dropped' else :state end,
    not_before = case when d.refusals + :refused >= {REFUSALS} then cast(:now as timestamptz)
        else cast(:not_before as timestamptz) end,
    sent_at = case when :state = 'sent' then cast(:now as timestamptz) else d.sent_at end
{_MINE} and d.attempts = mine.attempts returning d.alert_id
"""
# A raise that told at once that it is over needs no recovery.
_TOLD = """
insert into alert_deliveries (alert_id, phase, route, state, sent_at)
select told, 'resolved', :route, 'sent', :now from unnest(cast(:ids as bigint[])) told on conflict do nothing
"""


@dataclass(frozen=True)
class Claim:
    """Deliveries of one route that this sender alone may send, until the claim runs out. `tries` counts this one."""

    route: str
    notices: tuple[Notice, ...]
    tries: tuple[int, ...]

    @property
    def longest(self) -> int:
        """How often the most tried of them was tried."""
        return max(self.tries)


class Outbox:
    """What is owed to routes. Raises WarehouseUnavailableError, TransientError or PermanentError."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def due(self, rules: Sequence[Rule], now: datetime) -> list[str]:
        """The routes that a message is due to. Notes first what is owed; harmless as often as one likes.

        A route waits while one of its deliveries is claimed or was asked to wait, and until the oldest is as old as
        the route's digest window: then all of them go at once.
        """
        if not rules:
            return []
        with warehouse_errors(), self._engine.begin() as connection:
            return _due(connection, rules, now)

    def claim(self, rule: Rule, now: datetime) -> Claim | None:
        """Everything that waits for the route, for this sender alone; None when another has it, or nothing is due."""
        with warehouse_errors(), self._engine.begin() as connection:
            # Its lock lasts until the claim is made: two that lock rows side by side would each get some.
            if rule.route not in _due(connection, [rule], now):
                return None
            rows = connection.execute(sa.text(_CLAIM), {"route": rule.route, "most": MOST}).all()
            if not rows or any(row.not_before is not None and row.not_before > now for row in rows):
                return None
            claim = Claim(rule.route, tuple(map(_notice, rows)), tuple(row.attempts + 1 for row in rows))
            until = now + timedelta(seconds=CLAIM_SECONDS)
            connection.execute(sa.text(_TAKE), {**_deliveries(claim), "until": until})
            return claim

    def settle(self, claim: Claim, outcome: Outcome, now: datetime) -> int:
        """Notes what became of the claim; returns how many deliveries that held for: those still claimed."""
        state, error, not_before = _verdict(claim, outcome, now)
        refused = int(isinstance(outcome, Refused))
        values = {"state": state, "error": error, "not_before": not_before, "now": now, "refused": refused}
        with warehouse_errors(), self._engine.begin() as connection:
            mine = set(connection.scalars(sa.text(_SETTLE), {**_deliveries(claim), **values}))
            over = [each.alert_id for each in claim.notices if each.phase is Phase.RAISED and each.over]
            told = [alert_id for alert_id in over if alert_id in mine]
            if state == "sent" and told:
                connection.execute(sa.text(_TOLD), {"route": claim.route, "now": now, "ids": told})
            return len(mine)

    def purge(self, before: datetime) -> int:
        """Deletes the alerts, and their deliveries, that ended or were last raised before this."""
        last = sa.func.coalesce(alerts.c.resolved_at, alerts.c.last_raised_at)
        with warehouse_errors(), self._engine.begin() as connection:
            found = sa.delete(alerts).where(alerts.c.last_raised_at < before, last < before)
            return connection.execute(found).rowcount


def _due(connection: sa.Connection, rules: Sequence[Rule], now: datetime) -> list[str]:
    given = _parameters(rules, now)
    connection.execute(_ONE_AT_A_TIME)
    for statement in (_OWE, _FORGET, _OWE_RECOVERY, _OWE_AGAIN):
        connection.execute(sa.text(statement), given)
    return list(connection.scalars(sa.text(_DUE), given))


def _verdict(claim: Claim, outcome: Outcome, now: datetime) -> tuple[str, str | None, datetime | None]:
    """State, error and the time before which nothing is tried; for what is dropped at once, the time that it was."""
    if isinstance(outcome, Sent):
        return "sent", None, None
    error = storable(outcome.why)[:500]
    if isinstance(outcome, Refused):
        if outcome.drop:
            return "dropped", error, now
        return "pending", error, now + timedelta(seconds=pause(99))
    return "pending", error, now + timedelta(seconds=pause(claim.longest, outcome.seconds))


def _parameters(rules: Sequence[Rule], now: datetime) -> dict[str, Any]:
    documents = [{**asdict(rule), "severities": rule.severities} for rule in rules]
    return {"rules": json.dumps(documents), "now": now, "since": now - LOOK_BACK}


def _deliveries(claim: Claim) -> dict[str, Any]:
    return {
        "route": claim.route,
        "ids": [notice.alert_id for notice in claim.notices],
        "phases": [notice.phase.value for notice in claim.notices],
        "tries": list(claim.tries),
    }


def _notice(row: Any) -> Notice:
    return Notice(
        row.id,
        Phase(row.phase),
        row.kind,
        row.severity,
        row.stream,
        row.title,
        row.body,
        row.times,
        row.raised_at,
        row.last_raised_at,
        row.resolved_at,
        tuple(row.sample) if isinstance(row.sample, list) else (),
    )
