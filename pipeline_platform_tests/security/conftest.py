"""The gateway's fixtures, for attacks on it."""

from pipeline_platform_tests.integration.test_gateway.conftest import (  # noqa: F401
    base,
    client,
    connected,
    engine,
    pipeline,
    redis_client,
    settings,
    template_database,
    token_for,
)
