"""Sends one message to one webhook and says what became of it. It raises nothing for what a receiver does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

from pipeline_platform import __version__
from pipeline_platform.alerts.answers import judge
from pipeline_platform.alerts.targets import Resolve, Target, TargetError, find_target, host_of, resolve
from pipeline_platform.core.alerts import Later, Outcome, Refused

READ_MOST = 16_384  # bytes of an answer
ADDRESSES = 8  # of a name, that are tried


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
        addresses = target.addresses[:ADDRESSES]
        # Each gets its part of the time that is not for the answer, so that a dead one leaves some for the next.
        connect = min(self.patience.connect, max(0.1, (self.patience.whole - self.patience.read) / len(addresses)))
        for address in addresses:
            outcome, unheard = self._try(target, address, message, connect, deadline)
            if not unheard:
                break
        return outcome

    def _try(
        self, target: Target, address: str, message: Mapping[str, Any], connect: float, deadline: float
    ) -> tuple[Outcome, bool]:
        """What came of one address, and whether it has not even heard the message."""
        host = target.host
        try:
            return self._post(target, address, message, connect, deadline), False
        except requests.exceptions.SSLError:
            return Refused(f"{host} does not prove with a valid certificate that it is {host}."), True
        except requests.Timeout as error:
            return Later(0.0, f"{host} did not answer in time."), isinstance(error, requests.ConnectTimeout)
        except (requests.RequestException, OSError) as error:
            return Later(0.0, f"{host} cannot be reached ({type(error).__name__})."), _not_connected(error)
        except Exception as error:  # noqa: BLE001 - an answer may be odd in ways that no library foresaw
            return Later(0.0, f"{host} answered what cannot be read ({type(error).__name__})."), False

    def _post(
        self, target: Target, address: str, message: Mapping[str, Any], connect: float, deadline: float
    ) -> Outcome:
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
                target.url(address),
                data=json.dumps(message, ensure_ascii=False).encode("utf-8", "replace"),
                headers=headers,
                timeout=(connect, self.patience.read),
                allow_redirects=False,
                stream=True,
                verify=self.verify,
            )
            with reply:
                return judge(target.host, reply.status_code, reply.headers, _body(reply, deadline), datetime.now(UTC))


def _not_connected(error: Exception) -> bool:
    """Whether there was no connection at all: then the message has certainly not been heard."""
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


class _Proving(HTTPAdapter):
    """Connects to the address in the URL, and has the server prove that it is `host`."""

    def __init__(self, host: str) -> None:
        self._host = host
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """With the name for SNI and for the certificate."""
        super().init_poolmanager(*arguments, **options, server_hostname=self._host, assert_hostname=self._host)


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
