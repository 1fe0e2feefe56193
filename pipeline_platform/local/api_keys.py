"""API keys that `up` makes and keeps in the state folder: made once, and again when the queue's server lost them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline_platform.local.secret_files import write_private
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import KeyStore, token_id


def kept_key(redis_url: str, path: Path, name: str, scopes: Collection[str]) -> str:
    """The token in the file `path`, or a new one where there is none or it is good no more."""
    token = path.read_text().strip() if path.exists() else ""
    client = connect(redis_url)
    try:
        keys = KeyStore(client)
        good = {key.id for key in keys.list() if key.revoked_at is None}
        if token_id(token) not in good:
            _, token = keys.create(name, scopes)
            write_private(path, token + "\n")
    finally:
        client.close()
    return token
