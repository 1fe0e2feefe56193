"""The Celery app of a worker: dagster-celery's tasks on our broker.

Late acknowledgement: a task whose child dies is reported as failed, and one whose worker dies is delivered again
after the visibility timeout, which is longer than any run may take. The ledger makes a second delivery harmless.
"""

from __future__ import annotations

from typing import Any

from celery.signals import worker_ready
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from pipeline_platform.settings import Settings

# The same as in dagster.yaml: the launcher and the worker have to agree.
CONFIG: dict[str, Any] = {
    "worker_prefetch_multiplier": 1,
    "task_acks_late": True,
    "broker_transport_options": {"visibility_timeout": 86_400},
    "broker_connection_retry_on_startup": True,
    "result_expires": 3_600,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}


def build_app(broker: str) -> Any:
    """The app with its broker and result store on the same Redis database."""
    app = make_app({"broker": broker, "backend": broker, "config_source": CONFIG, "task_default_queue": "dagster"})
    create_execute_job_task(app)
    create_resume_job_task(app)
    return app


_settings = Settings.load()
app = build_app(_settings.broker)


@worker_ready.connect  # type: ignore[untyped-decorator]
def _tell(**_: object) -> None:
    """Tells the supervisor that tasks are taken."""
    if _settings.worker_ready_file is not None:
        _settings.worker_ready_file.touch()
