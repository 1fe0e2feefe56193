"""The format of /metrics: 0.0.4 unless Accept asks for another that there is."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from pipeline_platform.gateway.expositions import exposition
from pipeline_platform.gateway.metrics import Metrics

OLD = "text/plain; version=0.0.4; charset=utf-8"
NEW = "text/plain; version=1.0.0; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75"
PROMETHEUS_2 += ",text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
PROMETHEUS_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
PROMETHEUS_3 += "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
PROMETHEUS_3 += "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", OLD),
        ("*/*", OLD),
        ("text/plain", OLD),
        ("text/plain;version=0.0.4", OLD),
        ("text/html,application/xhtml+xml,*/*;q=0.8", OLD),
        ("application/json", OLD),
        ("application/openmetrics-text;q=0", OLD),
        ("application/openmetrics-text;q=0.5, text/plain;q=0.9", OLD),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", OLD),
        ("application/openmetrics-text;version=99.0.0", OLD),
        ("application/openmetrics-text;version=x\r\nSet-Cookie: a=b", OLD),
        ("application/openmetrics-text;version=1.0.0;q=x, nothing", OLD),
        ("application/openmetrics-text", OPEN),
        ("Application/OpenMetrics-Text;", OPEN),
        ("text/plain;q=0.5, application/openmetrics-text", OPEN),
        ('application/openmetrics-text; version="1.0.0"', OPEN + "; escaping=underscores"),
        ("application/openmetrics-text;version=1.0.0;escaping=other", OPEN + "; escaping=underscores"),
        (PROMETHEUS_2, OPEN + "; escaping=underscores"),
        (PROMETHEUS_3, OPEN + "; escaping=allow-utf-8"),
        ("text/plain; version=1.0.0; escaping=allow-utf-8", NEW + "; escaping=allow-utf-8"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, content_type: str) -> None:
    encode, answered = exposition(accept)
    metrics = Metrics()
    metrics.requests.labels("/healthz", "HEAD", "200").inc(3)
    page = metrics.page(encode).decode()
    families = (openmetrics if content_type.startswith(OPEN) else plain)(page)
    samples = {sample.name: sample.value for family in families for sample in family.samples}
    assert answered == content_type
    assert samples["pipeline_http_requests_total"] == 3
    assert page.endswith("# EOF\n") is content_type.startswith(OPEN)
