"""The safety net: a sensor that captures in `assets` every failed run that has not told of itself."""

# No postponed annotations here: Dagster reads them at run time.

from datetime import UTC, datetime

import dagster as dg

from pipeline_platform.errors import TransientError
from pipeline_platform.orchestration.cursors import kept, moment
from pipeline_platform.orchestration.failures.capture import capture
from pipeline_platform.orchestration.resources import Warehouse

INTERVAL = 3


def failed_runs_sensor() -> dg.SensorDefinition:
    """On from the start; requests no runs."""

    @dg.sensor(
        name="failed_runs_sensor",
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes failed and canceled runs, also those that never started, to the table assets.",
    )
    def failed_runs(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SkipReason:
        try:
            found = capture(context.instance, warehouse.engine, kept(context, moment, None), datetime.now(UTC))
        except TransientError as error:
            return dg.SkipReason(f"{error} The next tick looks again, from the same place.")
        context.update_cursor(found.until.isoformat())
        return dg.SkipReason(
            f"Looked at {found.seen} failed runs; new to the ledger: {found.batches} of batches, {found.runs} others."
        )

    return failed_runs
