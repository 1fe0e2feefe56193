"""One route's notices as one message, sent: what the op of the delivery and `alerts test` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pipeline_platform.alerts.digest import digest
from pipeline_platform.alerts.messages import message
from pipeline_platform.alerts.routes import Route
from pipeline_platform.alerts.targets import host_of
from pipeline_platform.alerts.webhook import Webhook, confirmed
from pipeline_platform.core.alerts import Notice, Outcome, Phase, Refused
from pipeline_platform.errors import SettingError


def deliver(
    route: Route, notices: Sequence[Notice], webhook: Webhook, environment: Mapping[str, str], now: datetime
) -> Outcome:
    """Sends the notices to the route as one message. `environment` holds the URLs that the file only names."""
    try:
        url = route.address(environment)
    except SettingError as error:
        return Refused(str(error))
    body = message(digest(notices), route.format, now)
    if route.format == "discord":
        try:
            url = confirmed(url)
        except ValueError:
            return Refused("The URL cannot be read.")
    return webhook.send(url, body)


def receiver(route: Route, environment: Mapping[str, str]) -> str:
    """The host that the route leads to; empty when that is not known."""
    try:
        return host_of(route.address(environment))
    except SettingError:
        return ""


def trial(now: datetime) -> Notice:
    """The notice of `alerts test`."""
    return Notice(
        alert_id=0,
        phase=Phase.RAISED,
        kind="test",
        severity="info",
        stream=None,
        title="A test: alerts of Pipeline Platform arrive here",
        body="Somebody ran `pipeline-platform alerts test`. There is nothing to do.",
        times=1,
        raised_at=now,
        last_raised_at=now,
        sample=({"reason": "test", "payload": '{"source": "s1", "metric": "m1"}'},),
    )
