"""A digest as the body of a webhook: Discord's shape within Discord's limits, or our own JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pipeline_platform.alerts.digest import Digest, Item, cut

VERSION = 1  # of the JSON shape; a change that a reader has to know of raises it
# https://discord.com/developers/docs/resources/message and .../webhook: what Discord answers 400 beyond.
CONTENT, EMBEDS, EMBED_TITLE, EMBED_BODY, FIELDS, FIELD_NAME, FIELD_VALUE, EMBEDS_TOTAL = (
    *(2000, 10, 256, 4096, 25, 256, 1024, 6000),
)
_COLOURS = {"critical": 0xD32F2F, "warning": 0xF9A825, "info": 0x1976D2}
_GREEN = 0x2E7D32
_MARKS = {"critical": "🔴", "warning": "🟠", "info": "🔵"}


def message(digest: Digest, form: Literal["discord", "json"], now: datetime) -> dict[str, Any]:
    """The message as a JSON object."""
    return as_discord(digest) if form == "discord" else as_json(digest, now)


def as_discord(digest: Digest) -> dict[str, Any]:
    """`content` with the headline, an embed an alert; nobody is pinged by what a text holds."""
    mark = _MARKS[digest.severity] if digest.raised else "🟢"
    lines = [f"{mark} **{_plain(digest.headline)}**"]
    if digest.more:
        kinds = ", ".join(f"{count} {kind}" for kind, count in digest.by_kind.items())
        lines += [f"By kind: {kinds}.", f"The first {len(digest.items)} are below, and {digest.more} more."]
    embeds: list[dict[str, Any]] = []
    left = EMBEDS_TOTAL
    for number, item in enumerate(digest.items[:EMBEDS]):
        # A fair share of what is left, so that the last alert has a title too.
        embed, used = _embed(item, left // (min(len(digest.items), EMBEDS) - number))
        embeds.append(embed)
        left -= used
    return {
        "username": "Pipeline Platform",
        "content": cut("\n".join(lines), CONTENT),
        "embeds": embeds,
        "allowed_mentions": {"parse": []},
    }


def as_json(digest: Digest, now: datetime) -> dict[str, Any]:
    """The documented shape, see docs/alerts.md."""
    return {
        "version": VERSION,
        "source": "pipeline-platform",
        "sent_at": _time(now),
        "headline": digest.headline,
        "severity": digest.severity,
        "raised": digest.raised,
        "recovered": digest.recovered,
        "by_severity": digest.by_severity,
        "by_kind": digest.by_kind,
        "more": digest.more,
        "alerts": [
            {
                "id": item.alert_id,
                "state": item.state,
                "kind": item.kind,
                "severity": item.severity,
                "stream": item.stream,
                "title": item.title,
                "body": item.body,
                "times": item.times,
                "raised_at": _time(item.raised_at),
                "last_raised_at": _time(item.last_raised_at),
                "resolved_at": _time(item.resolved_at) if item.resolved_at else None,
                "samples": list(item.samples),
            }
            for item in digest.items
        ],
    }


def _embed(item: Item, room: int) -> tuple[dict[str, Any], int]:
    """An embed of at most `room` characters, and how many it has: title and facts first, then body, then samples."""
    used = 0

    def take(text: str, limit: int) -> str:
        nonlocal used
        kept = cut(text, max(0, min(limit, room - used)))
        used += _units(kept)
        return kept

    prefix = {"open": "", "over": "Over already: ", "recovered": "Recovered: "}[item.state]
    embed: dict[str, Any] = {
        "title": take(prefix + _plain(item.title), EMBED_TITLE),
        "color": _GREEN if item.state == "recovered" else _COLOURS[item.severity],
        "timestamp": _time(item.resolved_at or item.last_raised_at),
        "fields": [],
    }
    for name, value in _facts(item):
        if room - used > len(name) + _units(value):
            embed["fields"].append({"name": take(name, FIELD_NAME), "value": take(value, FIELD_VALUE), "inline": True})
    if item.body and room - used > 0:
        embed["description"] = take(_plain(item.body), EMBED_BODY)
    for number, sample in enumerate(item.samples, 1):
        name = f"example {number}"
        if len(embed["fields"]) < FIELDS and room - used > len(name) + 40:
            fenced = f"```{cut(sample.replace('`', 'ˋ'), min(FIELD_VALUE, room - used - len(name)) - 6)}```"
            embed["fields"].append(
                {"name": take(name, FIELD_NAME), "value": take(fenced, FIELD_VALUE), "inline": False}
            )
    return embed, used


def _facts(item: Item) -> list[tuple[str, str]]:
    facts = [("severity", item.severity), ("kind", item.kind)]
    if item.stream:
        facts.append(("stream", item.stream))
    if item.times > 1:
        facts.append(("times", f"{item.times:,}"))
    since = f"{item.raised_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if item.resolved_at is None:
        return [*facts, ("since", since)]
    return [*facts, ("from", since), ("to", f"{item.resolved_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")]


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _plain(text: str) -> str:
    """Without links that show another text than their target."""
    return text.replace("](", "]\u200b(")


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
