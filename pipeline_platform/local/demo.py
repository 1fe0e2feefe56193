"""The demo load: a steady, realistic stream of events through the gateway, with the odd ones that real ones have.

About 2 % are negative, 1 % invalid and 1 % late. Run by `pipeline-platform up --demo`; also `python -m
pipeline_platform.local.demo` with PIPELINE_GATEWAY_URL and PIPELINE_API_KEY.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import requests

from pipeline_platform.settings import Settings, require

METRICS = {
    "temperature_c": (21.0, 4.0),
    "humidity_pct": (45.0, 10.0),
    "power_w": (320.0, 120.0),
    "cpu_pct": (35.0, 25.0),
}
SOURCES = [f"sensor-{number:02}" for number in range(1, 13)]
# Those that pay in a currency which the demo's prices have.
COUNTRIES = {"DE": 5, "FR": 3, "GB": 3, "US": 8, "NL": 2, "IE": 1}
PRODUCTS = {"coffee-1kg": 14.9, "tea-100g": 6.5, "mug-blue": 12.0, "filter-100": 4.2, "grinder": 89.0}
REPORT_SECONDS = 10.0

Event = dict[str, Any]


def telemetry(rng: random.Random, now: datetime) -> Event:
    """A reading that follows the time of day, or an odd one."""
    metric = rng.choice(list(METRICS))
    middle, swing = METRICS[metric]
    daily = math.sin((now.hour * 60 + now.minute) / 1440 * 2 * math.pi)
    value = abs(middle + swing * daily + rng.gauss(0, swing / 5))
    event: Event = {"source": rng.choice(SOURCES), "metric": metric, "value": round(value, 3), "ts": _stamp(now)}
    return _odd(rng, event, "value", now, late=timedelta(hours=2))


def order(rng: random.Random, now: datetime) -> Event:
    """An order line, or an odd one."""
    product = rng.choice(list(PRODUCTS))
    quantity = rng.choice([1, 1, 1, 2, 2, 3, 5])
    event: Event = {
        "country": rng.choices(list(COUNTRIES), list(COUNTRIES.values()))[0],
        "product": product,
        "amount": round(PRODUCTS[product] * quantity * rng.uniform(0.9, 1.1), 2),
        "quantity": quantity,
        "ts": _stamp(now),
    }
    return _odd(rng, event, "quantity", now, late=timedelta(days=2))


def _odd(rng: random.Random, event: Event, measure: str, now: datetime, late: timedelta) -> Event:
    dice = rng.random()
    if dice < 0.02:
        event[measure] = -abs(event[measure]) - 1
    elif dice < 0.03:
        event |= rng.choice(
            [{measure: "n/a"}, {"firmware": "2.1.7"}, {"ts": "yesterday"}, {"ts": "1999-12-31T23:59:59Z"}]
        )
    elif dice < 0.04:
        event["ts"] = _stamp(now - late)
    return event


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


STREAMS: dict[str, tuple[Callable[[random.Random, datetime], Event], float]] = {
    "telemetry": (telemetry, 200.0),
    "orders": (order, 20.0),
}


def run(
    gateway: str, api_key: str, *, seed: int, pace: float = 1.0, clock: Callable[[], float] = time.monotonic
) -> None:
    """Sends a request a stream a second until it is stopped; says how it goes every ten seconds."""
    rng = random.Random(seed)
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {api_key}"
    sent = refused = 0
    due, report = clock(), clock() + REPORT_SECONDS
    while True:
        for stream, (make, rate) in STREAMS.items():
            now = datetime.now(UTC)
            events = [make(rng, now) for _ in range(round(rate * pace))]
            accepted = _send(session, gateway, stream, events)
            sent, refused = sent + accepted, refused + len(events) - accepted
        if clock() >= report:
            report += REPORT_SECONDS
            print(_progress(session, gateway, sent, refused), flush=True)
        due += 1.0
        time.sleep(max(0.0, due - clock()))
        due = max(due, clock() - 5.0)  # after an outage, do not catch up for ever


def _send(session: requests.Session, gateway: str, stream: str, events: list[Event]) -> int:
    """How many events were accepted."""
    body = b"\n".join(orjson.dumps(event) for event in events)
    try:
        answer = session.post(
            f"{gateway}/v1/streams/{stream}/events",
            data=body,
            headers={"Content-Type": "application/x-ndjson"},
            timeout=10,
        )
    except requests.RequestException:
        return 0
    return len(events) if answer.status_code == 202 else 0


def _progress(session: requests.Session, gateway: str, sent: int, refused: int) -> str:
    line = f"{sent:,} events accepted" + (f", {refused:,} not" if refused else "")
    try:
        totals = session.get(f"{gateway}/v1/stats", timeout=5).json()["overall"]["totals"]
    except (requests.RequestException, ValueError, KeyError):
        return line
    return (
        f"{line}; in the warehouse since the beginning: {totals['loaded']:,} loaded, "
        f"{totals['negative']:,} negative dropped, {totals['rejected']:,} in dead_letters"
    )


def main() -> None:
    """The entry of the demo's process, which knows a gateway and an API key, and nothing else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--pace", type=float, default=1.0, help="1 is 220 events a second")
    options = parser.parse_args()
    settings = Settings.load()
    run(settings.gateway_link, require(settings.api_key, "PIPELINE_API_KEY"), seed=options.seed, pace=options.pace)


if __name__ == "__main__":
    main()
