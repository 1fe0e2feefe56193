"""What the runtime uses of Dagster that Dagster may change without notice, in one list.

`changes()` says what is no longer as it was when the runtime was written; a test asks it, so that an upgrade fails
with a name and not with a stack that never ends a tick.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

# Dotted path of a class, function or method -> the parameters that we pass or override, None when we only name it.
# pkgutil's form, module:object, tells a module from a class.
INTERNALS: dict[str, tuple[str, ...] | None] = {
    # daemon.py
    "dagster._daemon.sensor:execute_sensor_iteration": (
        "workspace_process_context",
        "logger",
        "threadpool_executor",
        "submit_threadpool_executor",
        "sensor_tick_futures",
        "instrument_elapsed",
    ),
    "dagster._daemon.sensor:is_under_min_interval": ("state", "remote_sensor"),
    "dagster._daemon.daemon:SensorDaemon.__init__": ("self", "settings"),
    "dagster._daemon.daemon:SensorDaemon.core_loop": ("self", "workspace_process_context", "shutdown_event"),
    "dagster._daemon.daemon:SensorDaemon.instrument_elapsed": ("self", "sensor", "elapsed", "min_interval"),
    "dagster._daemon.daemon:SensorDaemon.daemon_type": (),
    "dagster._daemon.backfill:execute_backfill_iteration_loop": (
        "workspace_process_context",
        "logger",
        "shutdown_event",
        "threadpool_executor",
        "submit_threadpool_executor",
    ),
    "dagster._daemon.daemon:BackfillDaemon.__init__": ("self", "settings"),
    "dagster._daemon.daemon:BackfillDaemon.core_loop": ("self", "workspace_process_context", "shutdown_event"),
    "dagster._daemon.daemon:BackfillDaemon.daemon_type": (),
    "dagster:DagsterInstance.get_backfill_settings": ("self",),
    "dagster._daemon.controller:create_daemon_of_type": ("daemon_type", "instance"),
    "dagster._daemon.controller:daemon_controller_from_instance": (
        "instance",
        "workspace_load_target",
        "gen_daemons",
        "log_level",
        "code_server_log_level",
    ),
    "dagster._daemon.controller:DagsterDaemonController.check_daemon_loop": ("self",),
    "dagster._daemon.utils:DaemonErrorCapture.process_exception": ("exc_info", "logger", "log_message"),
    "dagster._core.remote_representation.external:RemoteSensor.selector_id": None,
    "dagster_shared.error:SerializableErrorInfo": None,
    "dagster._core.workspace.context:IWorkspaceProcessContext": None,
    "dagster._core.workspace.load_target:WorkspaceFileTarget": None,
    "dagster._utils.interrupts:capture_interrupts": (),
    "dagster._utils.interrupts:setup_interrupt_handlers": (),
    "dagster:DagsterInstance.get_required_daemon_types": ("self",),
    "dagster:DagsterInstance.get_sensor_settings": ("self",),
    # code_token.py
    "dagster._grpc.client:DagsterGrpcClient.__init__": ("self", "metadata"),
    # resources.py
    "dagster._core.definitions.resource_annotation:TreatAsResourceParam": None,
    # webserver/
    "dagster_webserver.webserver:DagsterWebserver.__init__": ("self", "process_context", "live_data_poll_rate"),
    "dagster_webserver.webserver:DagsterWebserver.build_middleware": ("self",),
    "dagster_webserver.webserver:DagsterWebserver.build_routes": ("self",),
    "dagster_webserver.webserver:DagsterWebserver.webserver_info_endpoint": ("self", "_request"),
    "dagster_webserver.webserver:DagsterWebserver.index_html_endpoint": ("self", "request"),
    "dagster_webserver.webserver:DagsterWebserver.download_debug_file_endpoint": ("self", "request"),
    "dagster_webserver.webserver:DagsterWebserver.report_asset_materialization_endpoint": ("self", "request"),
    "dagster_webserver.webserver:DagsterWebserver.report_asset_check_endpoint": ("self", "request"),
    "dagster_webserver.webserver:DagsterWebserver.report_asset_observation_endpoint": ("self", "request"),
    "dagster_webserver.graphql:GraphQLServer.graphql_http_endpoint": ("self", "request"),
    "dagster_webserver.graphql:GraphQLServer.execute_graphql_request": (
        "self",
        "request",
        "query",
        "variables",
        "operation_name",
    ),
    "dagster_webserver.graphql:GraphQLServer.gen_graphql_response": (
        "self",
        "request_context",
        "query",
        "variables",
        "operation_name",
    ),
    "dagster_webserver.graphql:GraphQLServer._determine_status_code": ("self", "resolver_errors", "captured_errors"),
    "dagster_webserver.graphql:GraphQLServer.execute_graphql_subscription": ("self", "websocket", "query"),
    "dagster._core.workspace.context:WorkspaceRequestContext.__init__": (
        "self",
        "instance",
        "current_workspace",
        "process_context",
        "version",
        "source",
        "read_only",
    ),
    "dagster._core.workspace.context:WorkspaceRequestContext.permissions_for_location": ("self", "location_name"),
    "dagster._core.workspace.context:WorkspaceRequestContext.get_viewer_tags": ("self",),
    "dagster._core.workspace.context:WorkspaceRequestContext.get_reporting_user_tags": ("self",),
    "dagster._core.workspace.context:WorkspaceProcessContext.create_request_context": ("self", "source"),
    "dagster._core.workspace.context:WorkspaceProcessContext.get_current_workspace": ("self",),
    "dagster._core.workspace.permissions:LOCATION_SCOPED_PERMISSIONS": None,
    "dagster._core.workspace.permissions:PermissionResult": None,
    # storage.py
    "dagster_postgres.run_storage:PostgresRunStorage.add_run": ("self", "dagster_run"),
    "dagster._core.storage.config:pg_config": (),
    "dagster._core.storage.event_log.sql_event_log:SqlEventLogStorage.store_event": ("self", "event"),
    "dagster._core.scheduler.instigation:TickStatus": None,
    "dagster._core.storage.runs.sql_run_storage:SqlRunStorage.has_built_index": ("self", "migration_name"),
    "dagster._core.storage.schedules.sql_schedule_storage:SqlScheduleStorage.has_built_index": (
        "self",
        "migration_name",
    ),
    "dagster._core.storage.schedules.sql_schedule_storage:SqlScheduleStorage.has_instigators_table": ("self",),
    "dagster._core.storage.schedules.sql_schedule_storage:SqlScheduleStorage._has_instigators_table": ("self", "conn"),
    "dagster._core.storage.schedules.sql_schedule_storage:SqlScheduleStorage.purge_ticks": (
        "self",
        "origin_id",
        "selector_id",
        "before",
        "tick_statuses",
    ),
    "dagster_postgres.utils:create_pg_connection": ("engine",),
    "dagster_postgres.utils:pg_url_from_config": ("config_value",),
    "dagster_postgres.event_log:PostgresEventLogStorage.store_event": ("self", "event"),
    **{
        f"dagster_postgres.{module}:{name}.{method}": parameters
        for module, name in [
            ("run_storage", "PostgresRunStorage"),
            ("event_log", "PostgresEventLogStorage"),
            ("schedule_storage", "PostgresScheduleStorage"),
        ]
        for method, parameters in {
            "__init__": ("self", "postgres_url", "should_autocreate_tables"),
            "optimize_for_webserver": ("self", "statement_timeout", "pool_recycle", "max_overflow"),
        }.items()
    },
}

# Source that has to hold a text: attributes have no signature to look at.
TEXTS: list[tuple[str, str]] = [
    ("dagster._daemon.daemon:SensorDaemon.__init__", "self._threadpool_executor"),
    ("dagster._daemon.daemon:SensorDaemon.__init__", "self._submit_threadpool_executor"),
    ("dagster._daemon.sensor:execute_sensor_iteration", "sensor_tick_futures[sensor.selector_id] = future"),
    ("dagster._daemon.sensor:execute_sensor_iteration", "threadpool_executor.submit("),
    ("dagster._daemon.sensor:_process_tick_generator", "yield error_info"),
    ("dagster_postgres.run_storage:PostgresRunStorage.__init__", "self._engine = create_pg_engine("),
    ("dagster_postgres.event_log:PostgresEventLogStorage.__init__", "self._engine = create_pg_engine("),
    ("dagster_postgres.schedule_storage:PostgresScheduleStorage.__init__", "self._engine = create_pg_engine("),
    ("dagster_postgres:DagsterPostgresStorage.run_storage.fget", "self._run_storage"),
    ("dagster_postgres:DagsterPostgresStorage.event_log_storage.fget", "self._event_log_storage"),
    ("dagster_postgres:DagsterPostgresStorage.schedule_storage.fget", "self._schedule_storage"),
    ("dagster_postgres:DagsterPostgresStorage.inst_data.fget", "self._inst_data"),
    ("dagster_postgres.event_log:PostgresEventLogStorage.watch", "SqlPollingEventWatcher"),
    ("dagster._core.workspace.context:WorkspaceRequestContext.permissions.fget", "get_user_permissions"),
    ("dagster._core.workspace.context:BaseWorkspaceRequestContext.show_instance_config.fget", "return"),
    ("dagster._core.workspace.context:WorkspaceRequestContext.has_permission", "self.permissions"),
]


def changes() -> Iterator[str]:
    """One sentence for each internal that is gone or has another shape."""
    for path, parameters in INTERNALS.items():
        found = _find(path)
        if found is None:
            yield f"{path} is gone"
        elif parameters is not None:
            now = inspect.signature(found).parameters
            if missing := [name for name in parameters if name not in now]:
                yield f"{path} no longer takes {', '.join(missing)}; now ({', '.join(now)})"
    for path, text in TEXTS:
        found = _find(path)
        if found is None:
            yield f"{path} is gone"
        elif text not in inspect.getsource(found):
            yield f"{path} no longer contains `{text}`"


def _find(path: str) -> Any:
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError):
        return None
