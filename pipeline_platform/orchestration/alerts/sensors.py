"""The sensor of the outbox: requests one run when something is due to a route."""

# No postponed annotations here: Dagster reads them at run time.

import time
from datetime import UTC, datetime

import dagster as dg

from pipeline_platform.errors import TransientError
from pipeline_platform.orchestration.alerts.jobs import JOB
from pipeline_platform.orchestration.alerts.resource import AlertRoutes
from pipeline_platform.orchestration.resources import CALM, Warehouse
from pipeline_platform.orchestration.under_way import run_under_way

INTERVAL = 2
AFTER_FAILURE = 30.0  # seconds: a run that fails before it has claimed anything would be requested at once again


def alerts_sensor() -> dg.SensorDefinition:
    """On from the start; idle without a file of routes."""

    @dg.sensor(
        name="deliver_alerts_sensor",
        job_name=JOB,
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks into the outbox of alerts and requests a run when a message is due to a route.",
    )
    def deliver_alerts_sensor(
        context: dg.SensorEvaluationContext, warehouse: Warehouse, alert_routes: AlertRoutes
    ) -> dg.RunRequest | dg.SkipReason:
        if not alert_routes.declared:
            return dg.SkipReason(
                "PIPELINE_ALERTS_FILE is not set, so nobody is told. Alerts are kept: `pipeline-platform alerts list`."
            )
        rules = [route.rule for route in alert_routes.load()]
        try:
            due = warehouse.alert_outbox.due(rules, datetime.now(UTC))
        except TransientError as error:
            return dg.SkipReason(f"{error} Alerts wait in the outbox; the next tick looks again.")
        if not due:
            return dg.SkipReason(f"Nothing is due to {len(rules)} route(s).")
        if reason := _wait(context.instance, time.time()):
            return dg.SkipReason(f"Due to {', '.join(due)}. {reason}")
        return dg.RunRequest(run_config=dict(CALM), tags={"pipeline/routes": ",".join(due)[:1000]})

    return deliver_alerts_sensor


def _wait(instance: dg.DagsterInstance, now: float) -> str:
    """Why no run is requested yet: while workers are busy, one every other second would only queue up."""
    if under_way := run_under_way(instance, JOB):
        return f"The run {under_way.run_id} is under way."
    for latest in instance.get_run_records(dg.RunsFilter(job_name=JOB), limit=1):
        run = latest.dagster_run
        ended = latest.end_time or latest.update_timestamp.timestamp()
        if run.is_finished and not run.is_success and now - ended < AFTER_FAILURE:
            return f"The run {run.run_id} failed a moment ago; the next one waits {AFTER_FAILURE:.0f} s."
    return ""
