"""The job of the outbox: one message a route, and what the receivers said."""

# No postponed annotations here: Dagster reads them at run time.

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from pipeline_platform.alerts.deliver import deliver, receiver
from pipeline_platform.alerts.routes import Route
from pipeline_platform.core.alerts import Later, Outcome, Refused, Sent
from pipeline_platform.orchestration.alerts.resource import AlertRoutes
from pipeline_platform.orchestration.resources import CALM, Warehouse

JOB = "deliver_alerts"
MAX_SECONDS = 300  # a run that hangs is ended, so that the next one may go


@dataclass(frozen=True)
class Told:
    """One message: to which route, about how many alerts, and what became of it."""

    route: str
    alerts: int
    outcome: Outcome

    @property
    def state(self) -> str:
        """In one word."""
        return type(self.outcome).__name__.lower()

    @property
    def words(self) -> str:
        """What the receiver said, or why it was not asked."""
        return self.outcome.said if isinstance(self.outcome, Sent) else self.outcome.why


def deliver_job() -> dg.JobDefinition:
    """A job with one op."""

    @dg.op(description="Sends each route what is due to it as one message, and notes what became of it.")
    def deliver_due_alerts(context: dg.OpExecutionContext, warehouse: Warehouse, alert_routes: AlertRoutes) -> None:
        told = list(deliver_all(alert_routes.load(), warehouse, alert_routes))
        for each in told:
            say = context.log.info if isinstance(each.outcome, Sent) else context.log.warning
            say(f"{each.route}: {each.alerts} alert(s) {each.state}: {each.words}")
        context.add_output_metadata(
            {
                "messages": len(told),
                "sent": sum(isinstance(each.outcome, Sent) for each in told),
                "alerts": sum(each.alerts for each in told),
                "routes": dg.MetadataValue.md(_table(told)),
            }
        )
        refused = [f"{each.route}: {each.words}" for each in told if isinstance(each.outcome, Refused)]
        if refused:  # the outcomes are noted; the run fails so that somebody sees it
            raise dg.Failure("; ".join(refused), allow_retries=False)

    @dg.job(
        name=JOB,
        description="Sends alerts to the routes of PIPELINE_ALERTS_FILE, grouped into one message a route.",
        executor_def=dg.in_process_executor,
        config=dict(CALM),
        tags={"dagster-celery/queue": "etl", "dagster/max_runtime": str(MAX_SECONDS)},
    )
    def deliver_alerts() -> None:
        deliver_due_alerts()

    return deliver_alerts


def deliver_all(routes: Sequence[Route], warehouse: Warehouse, alert_routes: AlertRoutes) -> list[Told]:
    """Claims, sends and settles route by route: what one receiver does is noted before the next is asked."""
    outbox, told = warehouse.alert_outbox, []
    silent: dict[str, Later] = {}  # hosts that asked everybody to wait
    for route in routes:
        claim = outbox.claim(route.rule, datetime.now(UTC))
        if claim is None:
            continue
        host = receiver(route, os.environ)
        outcome: Outcome
        if host in silent:
            outcome = silent[host]
        else:
            outcome = deliver(route, claim.notices, alert_routes.webhook, os.environ, datetime.now(UTC))
        outbox.settle(claim, outcome, datetime.now(UTC))
        if isinstance(outcome, Later) and outcome.everyone:
            silent[host] = outcome
        told.append(Told(route.name, len(claim.notices), outcome))
    return told


def _table(told: Sequence[Told]) -> str:
    lines = ["| route | alerts | outcome | receiver |", "|---|---|---|---|"]
    lines += [f"| {each.route} | {each.alerts} | {each.state} | {each.words.replace('|', '/')} |" for each in told]
    return "\n".join(lines)
