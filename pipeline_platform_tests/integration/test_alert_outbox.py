"""What is owed to routes, who sends it, and what becomes of it: exact over real PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from pipeline_platform.core.alerts import REFUSALS, Later, Outcome, Phase, Refused, Rule, Sent
from pipeline_platform.warehouse.alert_outbox import CLAIM_SECONDS, Claim, Outbox
from pipeline_platform.warehouse.alert_views import AlertQuery, list_alerts, open_counts
from pipeline_platform.warehouse.alerts import Alert, raise_alert, resolve_alert
from pipeline_platform_tests.integration.batches import execute, rows

TEAM = Rule("team", digest_seconds=10, renotify_seconds=3600)
OK = Sent("taken")


@dataclass
class Desk:
    """The outbox, and a clock that both it and the alerts go by."""

    engine: sa.Engine
    now: datetime = field(default_factory=lambda: datetime(2026, 1, 2, tzinfo=UTC))
    told: list[Claim] = field(default_factory=list)

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.engine)

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += timedelta(seconds=seconds)

    def raise_(self, key: str = "k", **fields: Any) -> None:
        """Raises an alert, now."""
        alert = Alert(key, "breaker_open", "critical", f"title of {key}", "body", "orders")
        with self.engine.begin() as connection:
            raise_alert(connection, replace(alert, **fields))
            given = {"now": self.now, "key": key}
            connection.execute(
                sa.text("update alerts set last_raised_at = :now where key = :key and resolved_at is null"), given
            )
            connection.execute(
                sa.text("update alerts set raised_at = :now where key = :key and resolved_at is null and times = 1"),
                given,
            )

    def resolve(self, key: str = "k") -> None:
        """Resolves it, now."""
        with self.engine.begin() as connection:
            assert resolve_alert(connection, key)
            connection.execute(
                sa.text(
                    "update alerts set resolved_at = :now where id = (select max(id) from alerts where key = :key)"
                ),
                {"now": self.now, "key": key},
            )

    def deliver(self, rule: Rule = TEAM, outcome: Outcome = OK) -> list[tuple[str, str]]:
        """One delivery: (phase, title's key) of what was told."""
        claim = self.outbox.claim(rule, self.now)
        if claim is None:
            return []
        assert self.outbox.settle(claim, outcome, self.now) == len(claim.notices)
        self.told.append(claim)
        return [(notice.phase.value, notice.title.removeprefix("title of ")) for notice in claim.notices]

    def states(self) -> list[tuple[Any, ...]]:
        """(alert, phase, route, state) of every delivery."""
        return rows(self.engine, "select alert_id, phase, route, state from alert_deliveries order by 1, 2, 3")


@pytest.fixture
def desk(engine: sa.Engine) -> Desk:
    """An empty desk."""
    return Desk(engine)


def test_alerts_wait_for_the_digest_window_and_go_as_one_message(desk: Desk) -> None:
    for number in range(500):
        desk.raise_(f"k{number}", severity="warning")
    desk.wait(5)
    desk.raise_("worst")
    assert desk.deliver() == []
    desk.wait(5)
    told = desk.deliver()
    assert (len(told), told[0]) == (501, ("raised", "worst"))
    desk.wait(3600)
    assert desk.deliver() == []


def test_a_route_gets_what_it_asks_for(desk: Desk) -> None:
    desk.raise_("critical")
    desk.raise_("info", severity="info", kind="asset_failing")
    desk.raise_("telemetry", stream="telemetry")
    desk.raise_("platform", stream=None)
    desk.wait(10)
    wanted: list[tuple[Rule, set[str]]] = [
        (replace(TEAM, route="all"), {"critical", "info", "telemetry", "platform"}),
        (replace(TEAM, route="severe", min_severity="warning"), {"critical", "telemetry", "platform"}),
        (replace(TEAM, route="orders", streams=("orders",)), {"critical", "info"}),
        (replace(TEAM, route="kinds", kinds=("asset_failing",)), {"info"}),
        (replace(TEAM, route="none", kinds=("other",)), set()),
    ]
    assert desk.outbox.due([rule for rule, _ in wanted], desk.now) == ["all", "kinds", "orders", "severe"]
    for rule, keys in wanted:
        assert {key for _, key in desk.deliver(rule)} == keys


def test_a_repeat_is_told_after_the_pause_only(desk: Desk) -> None:
    desk.raise_()
    desk.wait(10)
    assert desk.deliver() == [("raised", "k")]
    desk.wait(1800)
    desk.raise_()
    assert desk.deliver() == []
    desk.wait(1800)
    assert desk.deliver() == [("raised", "k")]
    assert desk.told[-1].notices[0].times == 2
    desk.wait(7200)
    assert desk.deliver() == [], "it was not raised again"


def test_a_recovery_is_told_once_to_those_who_were_told_of_the_raise(desk: Desk) -> None:
    desk.raise_()
    desk.wait(10)
    picky = replace(TEAM, route="picky", kinds=("other",))
    assert desk.deliver() == [("raised", "k")]
    assert desk.deliver(picky) == []
    desk.wait(60)
    desk.resolve()
    assert desk.deliver() == []
    desk.wait(10)
    assert desk.deliver() == [("resolved", "k")]
    desk.wait(60)
    assert (desk.deliver(), desk.deliver(picky)) == ([], [])
    desk.raise_()
    desk.wait(10)
    assert desk.deliver() == [("raised", "k")], "an alert of its own"


def test_what_is_over_within_the_window_is_told_to_nobody(desk: Desk) -> None:
    desk.raise_("seen")
    desk.outbox.due([TEAM], desk.now)
    desk.wait(9)
    desk.resolve("seen")
    desk.raise_("unseen")
    desk.resolve("unseen")
    desk.wait(60)
    assert desk.deliver() == []
    assert desk.states() == [(1, "raised", "team", "dropped")]
    assert rows(desk.engine, "select error from alert_deliveries") == [("It was over within the digest window.",)]


def test_what_was_over_when_it_could_be_told_is_told_once_as_over(desk: Desk) -> None:
    desk.raise_()
    desk.wait(10)
    assert desk.deliver(outcome=Later(0, "down")) == [("raised", "k")]
    desk.resolve()
    desk.wait(300)
    assert desk.deliver() == [("raised", "k")]
    assert desk.told[-1].notices[0].over
    desk.wait(300)
    assert desk.deliver() == []
    assert [state for *_, state in desk.states()] == ["sent", "sent"]


def test_an_alert_that_came_and_went_while_nobody_looked_is_told_unless_the_route_is_new(desk: Desk) -> None:
    desk.raise_("before")
    desk.wait(10)
    desk.deliver()
    desk.raise_("outage")
    desk.wait(3600)
    desk.resolve("outage")
    assert desk.deliver() == [("raised", "outage")]
    assert desk.deliver(replace(TEAM, route="new")) == [("raised", "before")]


def test_a_repeat_that_recovers_before_it_is_sent_is_a_recovery_alone(desk: Desk) -> None:
    desk.raise_()
    desk.wait(10)
    desk.deliver()
    desk.wait(3600)
    desk.raise_()
    desk.outbox.due([TEAM], desk.now)
    desk.resolve()
    desk.wait(10)
    assert desk.deliver() == [("resolved", "k")]


def test_a_resolution_while_the_raise_is_under_way_is_told(desk: Desk) -> None:
    desk.raise_()
    desk.wait(10)
    claim = desk.outbox.claim(TEAM, desk.now)
    assert claim is not None
    desk.resolve()
    desk.outbox.due([TEAM], desk.now)
    desk.outbox.settle(claim, OK, desk.now)
    desk.wait(10)
    assert desk.deliver() == [("resolved", "k")]


def test_a_receiver_that_is_down_is_left_alone_longer_and_longer_and_nothing_is_lost(desk: Desk) -> None:
    desk.raise_("k0")
    desk.wait(10)
    tries = []
    began = desk.now
    for second in range(1500):
        if second % 30 == 0:
            desk.raise_(f"more{second}")
        if desk.deliver(outcome=Later(0, "down")):
            tries.append((desk.now - began).total_seconds())
        desk.wait(1)
    assert tries == [0, 5, 15, 35, 75, 155, 315, 615, 915, 1215]
    desk.wait(300)
    assert len(desk.deliver()) == 51


def test_a_receiver_that_asks_for_a_pause_gets_it(desk: Desk) -> None:
    desk.raise_()
    desk.wait(10)
    desk.deliver(outcome=Later(64.5, "429"))
    desk.raise_("another")
    desk.wait(64)
    assert desk.outbox.due([TEAM], desk.now) == []
    desk.wait(1)
    assert len(desk.deliver()) == 2
    assert rows(desk.engine, "select distinct state, error, not_before from alert_deliveries") == [("sent", None, None)]


def test_a_refused_address_is_tried_every_five_minutes_for_a_day_and_a_refused_message_never(desk: Desk) -> None:
    desk.raise_()
    desk.wait(10)
    assert desk.deliver(outcome=Refused("404"))
    desk.wait(299)
    assert desk.deliver() == []
    desk.wait(1)
    execute(desk.engine, "update alert_deliveries set refusals = :tries", tries=REFUSALS - 1)
    desk.raise_("younger")
    desk.wait(10)
    assert len(desk.deliver(outcome=Refused("404"))) == 2
    told = "select state, error, refusals from alert_deliveries order by alert_id"
    assert rows(desk.engine, told) == [("dropped", "404", REFUSALS), ("pending", "404", 1)]
    desk.wait(300)
    assert desk.deliver() == [("raised", "younger")]
    desk.raise_("bad")
    desk.wait(10)
    assert desk.deliver(outcome=Refused("400", drop=True)) == [("raised", "bad")]
    desk.wait(3000)
    assert desk.deliver() == []
    desk.wait(3600)
    desk.raise_("bad")
    assert desk.deliver() == [("raised", "bad")], "raised again, long enough after"


def test_a_day_of_being_away_is_no_day_of_refusing(desk: Desk) -> None:
    desk.raise_()
    desk.wait(10)
    assert desk.deliver(outcome=Later(0, "down"))
    execute(desk.engine, "update alert_deliveries set attempts = :tries", tries=REFUSALS)
    desk.wait(600)
    assert desk.deliver(outcome=Refused("404"))
    desk.wait(300)
    assert desk.deliver() == [("raised", "k")]


def test_two_deliverers_at_once_send_once(desk: Desk) -> None:
    for number in range(50):
        desk.raise_(f"k{number}")
    desk.wait(10)
    for _ in range(20):
        barrier, claims = threading.Barrier(6), list[Claim | None]()

        def deliverer(barrier: threading.Barrier = barrier, claims: list[Claim | None] = claims) -> None:
            barrier.wait()
            claims.append(desk.outbox.claim(TEAM, desk.now))

        threads = [threading.Thread(target=deliverer) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (claim,) = [claim for claim in claims if claim is not None]
        assert len(claims) == 6
        assert len(claim.notices) == 50
        desk.wait(CLAIM_SECONDS + 1)  # the claim runs out unused


def test_a_claim_that_ran_out_settles_nothing(desk: Desk) -> None:
    desk.raise_()
    desk.wait(10)
    late = desk.outbox.claim(TEAM, desk.now)
    desk.wait(CLAIM_SECONDS)
    second = desk.outbox.claim(TEAM, desk.now)
    assert late is not None
    assert second is not None
    assert desk.outbox.settle(late, Refused("late", drop=True), desk.now) == 0
    assert desk.outbox.settle(second, OK, desk.now) == 1
    assert [state for *_, state in desk.states()] == ["sent"]


KILLED = """
import sys, time
from datetime import UTC, datetime
from pipeline_platform.core.alerts import Rule
from pipeline_platform.warehouse.alert_outbox import Outbox
from pipeline_platform.warehouse.engine import connect
claim = Outbox(connect(sys.argv[1])).claim(Rule("team"), datetime.fromisoformat(sys.argv[2]))
print(len(claim.notices), flush=True)  # "sent", and not noted yet
time.sleep(60)
"""


def test_a_sender_that_is_killed_after_sending_sends_once_more_at_most(desk: Desk, warehouse_url: str) -> None:
    desk.raise_()
    desk.wait(10)
    arguments = [sys.executable, "-c", KILLED, warehouse_url, desk.now.isoformat()]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdout is not None
        assert sender.stdout.readline() == "1\n"
        sender.send_signal(signal.SIGKILL)
    messages = 1
    for _ in range(300):
        messages += len(desk.deliver())
        desk.wait(1)
    assert messages == 2
    assert [state for *_, state in desk.states()] == ["sent"]


def test_alerts_are_purged_with_their_deliveries(desk: Desk) -> None:
    for key in ("ended", "forgotten", "lasting"):
        desk.raise_(key)
    desk.wait(10)
    desk.deliver()
    desk.resolve("ended")
    desk.wait(86_400)
    desk.raise_("lasting")
    desk.wait(86_400)
    assert desk.outbox.purge(desk.now - timedelta(days=1.5)) == 2
    assert rows(desk.engine, "select key from alerts") == [("lasting",)]
    assert len(desk.states()) == 1


def test_alerts_are_listed_in_pages_with_their_deliveries(desk: Desk) -> None:
    for number in range(5):
        desk.raise_(f"k{number}", severity="warning" if number % 2 else "critical")
    desk.resolve("k4")
    desk.wait(10)
    desk.deliver(outcome=Later(5, "down"))
    first = list_alerts(desk.engine, AlertQuery(limit=2))
    rest = list_alerts(desk.engine, AlertQuery(before=first[-1].id))
    assert [alert.key for alert in (*first, *rest)] == ["k3", "k2", "k1", "k0"]
    (delivery,) = first[0].deliveries
    assert (delivery.route, delivery.phase, delivery.state, delivery.error) == ("team", Phase.RAISED, "pending", "down")
    assert len(list_alerts(desk.engine, AlertQuery(open_only=False))) == 5
    assert list_alerts(desk.engine, AlertQuery(severity="info")) == []
    assert open_counts(desk.engine) == {"info": 0, "warning": 2, "critical": 2}


def test_looking_is_cheap_with_many_alerts(desk: Desk) -> None:
    """The sensor looks every two seconds: with 20,000 alerts of a month it may take milliseconds."""
    execute(
        desk.engine,
        """
        insert into alerts (key, kind, severity, stream, title, body, raised_at, last_raised_at, resolved_at)
        select 'k' || n, 'batch_failing', 'warning', 'orders', 't', 'b', at, at, at + interval '1 hour'
        from generate_series(1, 20000) n, lateral (select cast(:now as timestamptz) - n * interval '2 minutes') t(at)
        """,
        now=desk.now,
    )
    execute(
        desk.engine,
        "insert into alert_deliveries (alert_id, phase, route, state, sent_at) "
        "select id, phase, 'team', 'sent', resolved_at from alerts, unnest(array['raised', 'resolved']) phase",
    )
    execute(desk.engine, "analyze alerts, alert_deliveries")
    rules = [TEAM, replace(TEAM, route="pager", min_severity="critical")]

    def timed(look: Callable[[], object]) -> float:
        began = time.perf_counter()
        look()
        return time.perf_counter() - began

    took = sorted(timed(lambda: desk.outbox.due(rules, desk.now)) for _ in range(10))
    assert took[5] < 0.1, took
    print(f"median {took[5] * 1000:.1f} ms")
