"""Do the rollups equal a recomputation from the facts?"""

# No postponed annotations here: Dagster reads them at run time.

from datetime import UTC, datetime, timedelta

import dagster as dg

from pipeline_platform.core.rollups import Grain
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.orchestration.rollups.assets import rollup_key
from pipeline_platform.warehouse.reconcile import rollups_equal_facts

LOOK_BACK = {Grain.HOUR: timedelta(hours=3), Grain.DAY: timedelta(days=1)}


def rollup_checks(spec: StreamSpec) -> list[dg.AssetChecksDefinition]:
    """One check for each grain."""
    return [_check(spec, grain) for grain in Grain]


def _check(spec: StreamSpec, grain: Grain) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=rollup_key(spec.name, grain),
        name=f"equals_recomputation_{grain.value}",
        description=f"The {grain.unit}s rolled up in the last {LOOK_BACK[grain]} equal a recomputation from the facts.",
    )
    def equals_recomputation(warehouse: Warehouse) -> dg.AssetCheckResult:
        until = grain.complete(datetime.now(UTC))
        found = rollups_equal_facts(warehouse.engine, spec, grain, until - LOOK_BACK[grain], until)
        return dg.AssetCheckResult(
            passed=found.holds,
            metadata={"windows compared": found.compared, "differences": "; ".join(found.differences) or "none"},
        )

    return equals_recomputation
