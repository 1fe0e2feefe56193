"""A link that logs a browser in once, as an API key: what `up` and `pipeline-platform login` print."""

from __future__ import annotations

import redis

from pipeline_platform.access.doorkeeper import of_key
from pipeline_platform.errors import PermanentError
from pipeline_platform.queue.keys import KeyStore, token_id
from pipeline_platform.queue.sessions import CODE_SECONDS, SessionStore

MINUTES = CODE_SECONDS // 60


def one_time_link(client: redis.Redis, base: str, token: str) -> str:
    """`base`/login#code=...: good for one login within a quarter of an hour, with the role of the token's key.

    What is behind the # reaches no server and no log. Raises PermanentError for a key that is no login.
    """
    key = KeyStore(client).all_hashes().get(token_id(token) or "")
    if key is None or not key.matches(token) or of_key(key, "link") is None:
        raise PermanentError(
            "The API key is not good for a login: it is unknown, revoked, expired, or only for sending events. "
            "Make one with `pipeline-platform keys create NAME --scope read` and set PIPELINE_API_KEY to it."
        )
    code = SessionStore(client, absolute=0, idle=0).make_code(key.id)
    return f"{base.rstrip('/')}/login#code={code}"
