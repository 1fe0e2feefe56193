"""The Celery app of our workers: `celery -A pipeline_platform.orchestration.celery_app worker`.

Late acknowledgement: a task whose child dies is reported as failed, and one whose worker dies is delivered again
after the visibility timeout, which is longer than any run may take. The ledger makes a second delivery harmless.
"""

from __future__ import annotations

from pipeline_platform.orchestration.runtime.worker import build_worker_app
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.workers import WorkerBoard
from pipeline_platform.settings import Settings

# The most urgent first: in a worker of all queues a waiting ingest run goes before a waiting backfill. It would still
# wait for one that runs already, so `up` starts a worker for ingest and another for the rest. A run says its queue with
# the tag `dagster-celery/queue`.
QUEUES = ("ingest", "etl", "backfill")

_settings = Settings.load()
# Without retries and with little patience: the worker's loop waits for it.
_board = WorkerBoard(connect(_settings.redis_url, timeout=0.5, connections=1)) if _settings.redis_url else None
app = build_worker_app(
    _settings.broker,
    queues=QUEUES,
    preload=("pandas", "pyarrow.json", "psycopg", "dagster_postgres"),
    locations=("pipeline_platform.orchestration.definitions:definitions",),
    max_tasks_per_child=_settings.worker_max_runs,
    max_memory_per_child_kb=_settings.worker_max_memory // 1024,
    visibility_timeout=_settings.redeliver_after,
    ready_file=_settings.worker_ready_file,
    beat=_board.beat if _board else None,
)
