"""Sends one message to one webhook and says what became of it. It raises nothing for what a receiver does."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from pipeline_platform import __version__
from pipeline_platform.alerts.digest import cut
from pipeline_platform.alerts.secrets import without_secrets
from pipeline_platform.alerts.targets import Resolve, Target, TargetError, find_target, host_of, resolve
from pipeline_platform.core.alerts import Later, Outcome, Refused, Sent
from pipeline_platform.core.failures import FailureKind, of_http_status
from pipeline_platform.core.numbers import float_in

READ_MOST = 16_384  # bytes of an answer
SAID_CHARACTERS = 200
MESSAGE_TO_BLAME = frozenset({400, 406, 411, 413, 414, 415, 422, 431})


@dataclass(frozen=True)
class Patience:
    """Seconds: to connect, for each read, and for everything from the name to the answer."""

    connect: float = 5.0
    read: float = 10.0
    whole: float = 20.0


@dataclass(frozen=True)
class Webhook:
    """How webhooks are sent. `verify`: the certificates to trust, by default those of the installation."""

    allow_private: bool = False
    patience: Patience = Patience()
    resolve: Resolve = resolve
    verify: bool | str = True

    def send(self, url: str, message: Mapping[str, Any]) -> Outcome:
        """Posts the message once. It ends within `patience.whole`: what answers even later is not waited for."""
        found: list[Outcome] = []
        deadline = time.monotonic() + self.patience.whole
        # A thread of its own: neither a resolver nor headers that drip in can be interrupted in another way.
        worker = threading.Thread(target=lambda: found.append(self._send(url, message, deadline)), daemon=True)
        worker.start()
        worker.join(self.patience.whole)
        return found[0] if found else Later(0.0, f"{host_of(url)} did not answer within {self.patience.whole:g} s.")

    def _send(self, url: str, message: Mapping[str, Any], deadline: float) -> Outcome:
        host = host_of(url)
        try:
            target = find_target(url, allow_private=self.allow_private, resolve=self.resolve)
        except TargetError as error:
            return Refused(str(error))
        except (OSError, UnicodeError):
            return Later(0.0, f"The name {host} cannot be resolved.")
        try:
            return self._post(target, message, deadline)
        except requests.exceptions.SSLError:
            return Refused(f"{host} does not prove with a valid certificate that it is {host}.")
        except requests.Timeout:
            return Later(0.0, f"{host} did not answer in time.")
        except (requests.RequestException, OSError) as error:
            return Later(0.0, f"{host} cannot be reached ({type(error).__name__}).")
        except Exception as error:  # noqa: BLE001 - an answer may be odd in ways that no library foresaw
            return Later(0.0, f"{host} answered what cannot be read ({type(error).__name__}).")

    def _post(self, target: Target, message: Mapping[str, Any], deadline: float) -> Outcome:
        headers = {
            "Host": target.host_header,
            "Content-Type": "application/json",
            "User-Agent": f"pipeline-platform/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        with requests.Session() as session:
            session.trust_env = False  # neither a proxy, which would resolve the name anew, nor a netrc
            session.mount("https://", _Proving(target.host))
            reply = session.post(
                target.url,
                data=json.dumps(message, ensure_ascii=False).encode("utf-8", "replace"),
                headers=headers,
                timeout=(self.patience.connect, self.patience.read),
                allow_redirects=False,
                stream=True,
                verify=self.verify,
            )
            with reply:
                return judge(target.host, reply.status_code, reply.headers, _body(reply, deadline), datetime.now(UTC))


class _Proving(HTTPAdapter):
    """Connects to the address in the URL, and has the server prove that it is `host`."""

    def __init__(self, host: str) -> None:
        self._host = host
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """With the name for SNI and for the certificate."""
        super().init_poolmanager(*arguments, **options, server_hostname=self._host, assert_hostname=self._host)


def judge(host: str, status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Outcome:
    """What an answer means. Its texts are bounded, and hold nothing of the URL but the host."""
    if 200 <= status < 300:
        return Sent(f"{host} answered {status}")
    if 300 <= status < 400:
        elsewhere = host_of(headers.get("Location", ""))
        where = f" to {elsewhere[:80]}" if elsewhere else ""
        return Refused(f"{host} sends us elsewhere ({status}{where}); redirects are not followed: give the final URL.")
    document = _document(body)
    said = document.get("message") if document else body.decode("utf-8", "replace")
    text = cut(without_secrets(" ".join(str(said or "").split())), SAID_CHARACTERS)
    why = f"{host} answered {status}" + (f": {text}" if text else "")
    if of_http_status(status) is FailureKind.TRANSIENT:
        everyone = status == 429 and (
            headers.get("X-RateLimit-Global", "").lower() == "true"
            or headers.get("X-RateLimit-Scope", "").lower() == "global"
            or document.get("global") is True
        )
        return Later(max(_seconds(document.get("retry_after")), _retry_after(headers, now)), why, everyone)
    return Refused(why, drop=status in MESSAGE_TO_BLAME)


def confirmed(url: str) -> str:
    """A Discord webhook's URL with `wait=true`: it then answers when the message is stored, or says why it is not."""
    parts = urlsplit(url)
    if any(name == "wait" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return url
    return urlunsplit(parts._replace(query=f"{parts.query}&wait=true" if parts.query else "wait=true"))


def _body(reply: requests.Response, deadline: float) -> bytes:
    """The beginning of the answer, as it came: nothing is inflated. Less when the time is up."""
    body = b""
    while len(body) < READ_MOST and time.monotonic() < deadline:
        try:
            piece = reply.raw.read1(READ_MOST - len(body)) if hasattr(reply.raw, "read1") else reply.raw.read(1024)
        except Exception:  # noqa: BLE001 - the status says enough
            break
        if not piece:
            break
        body += piece
    return body


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _retry_after(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds of Retry-After, a number or a date; 0 without one that can be read."""
    value = headers.get("Retry-After", "").strip()
    if seconds := _seconds(value):
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    try:
        seconds = float_in(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
