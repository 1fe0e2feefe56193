"""Many alerts as one thing to say: counts, the worst few with bounded samples, and how many more there are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline_platform.alerts.secrets import without_secrets
from pipeline_platform.core.alerts import SEVERITIES, Notice, Phase

SHOWN = 5
SAMPLES = 3
SAMPLE_CHARACTERS = 160
TITLE_CHARACTERS = 200
BODY_CHARACTERS = 600
_WORSE = {severity: number for number, severity in enumerate(reversed(SEVERITIES))}


@dataclass(frozen=True)
class Item:
    """One alert of a digest: every text bounded and free of secrets."""

    alert_id: int
    state: str  # open, over (told late, as it was over already), recovered
    kind: str
    severity: str
    stream: str | None
    title: str
    body: str
    times: int
    raised_at: datetime
    last_raised_at: datetime
    resolved_at: datetime | None
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Digest:
    """What one message says. `more` alerts are counted and not shown."""

    headline: str
    severity: str  # the worst of what was raised; info when everything recovered
    raised: int
    recovered: int
    by_severity: dict[str, int]
    by_kind: dict[str, int]
    items: tuple[Item, ...]
    more: int


def digest(notices: Sequence[Notice], shown: int = SHOWN) -> Digest:
    """The notices as one digest: what is raised first, the worst first, then the oldest."""
    if not notices:
        raise ValueError("A digest is about something.")
    raised = [notice for notice in notices if notice.phase is Phase.RAISED]
    order = sorted(notices, key=lambda each: (each.phase is not Phase.RAISED, _WORSE[each.severity], each.raised_at))
    severities = Counter(notice.severity for notice in raised)
    by_severity = {name: severities[name] for name in reversed(SEVERITIES) if severities[name]}
    recovered = len(notices) - len(raised)
    items = tuple(_item(notice) for notice in order[:shown])
    return Digest(
        _headline(items, by_severity, len(raised), recovered),
        next(iter(by_severity), "info"),
        len(raised),
        recovered,
        by_severity,
        dict(Counter(notice.kind for notice in notices).most_common(10)),
        items,
        len(notices) - len(items),
    )


def cut(text: str, characters: int) -> str:
    """`text`, at most so long; what was cut off is marked. Counted in UTF-16 units, the strictest way of counting."""
    if _units(text) <= characters:
        return text
    kept: list[str] = []
    left = characters - 1
    for character in text:
        left -= _units(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…" if characters > 0 else ""


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)


def _headline(items: tuple[Item, ...], by_severity: dict[str, int], raised: int, recovered: int) -> str:
    if raised + recovered == 1:
        (only,) = items
        return only.title if only.state == "open" else f"{'Recovered' if recovered else 'Over already'}: {only.title}"
    parts = []
    if raised:
        counts = ", ".join(f"{count} {severity}" for severity, count in by_severity.items())
        parts.append(f"{raised} alert{'s' * (raised > 1)} ({counts})")
    if recovered:
        parts.append(f"{recovered} recovered")
    return ", ".join(parts)


def _item(notice: Notice) -> Item:
    state = "recovered" if notice.phase is Phase.RESOLVED else "over" if notice.over else "open"
    return Item(
        notice.alert_id,
        state,
        notice.kind,
        notice.severity,
        notice.stream,
        cut(without_secrets(notice.title), TITLE_CHARACTERS),
        cut(without_secrets(notice.body), BODY_CHARACTERS) if state != "recovered" else "",
        notice.times,
        notice.raised_at,
        notice.last_raised_at,
        notice.resolved_at,
        tuple(_sample(each) for each in list(notice.sample)[:SAMPLES]) if state != "recovered" else (),
    )


def _sample(value: Any) -> str:
    text = value if isinstance(value, str) else _pairs(value) if isinstance(value, dict) else json.dumps(value)
    return cut(without_secrets(text[: SAMPLE_CHARACTERS * 20]), SAMPLE_CHARACTERS)


def _pairs(value: dict[Any, Any]) -> str:
    """`reason=missing_field field=value payload={...}`, without what is empty."""
    texts = {
        str(name): each if isinstance(each, str) else json.dumps(each, default=str) for name, each in value.items()
    }
    return " ".join(f"{name}={text}" for name, text in texts.items() if text not in ("", "null"))
