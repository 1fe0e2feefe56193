"""Who may do what in the embedded Valkey: an ACL user for each kind of process, in the server's configuration.

Database 0 holds events, keys and sessions, database 1 Celery's tasks. Whoever can write a task has the workers' rights,
and whoever can write `pp:keys` is an admin: so the gateway, which faces the network, can do neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

ADMIN, GATEWAY, WORKERS, DAEMON, WEB = "admin", "gateway", "workers", "daemon", "web"

_SESSION = "+ping +echo +select +auth +hello +quit +reset +time +info +client|setinfo +client|setname +client|id"
_TRANSACTION = "+multi +exec +discard +unwatch"
_SCRIPTS = "+eval +evalsha +script|load +script|exists"
# Neither across databases nor as code that stays.
_ANY_DATA = f"+@read +@write {_SCRIPTS} +watch -@dangerous -@admin -move -copy -function -fcall -fcall_ro"

# What gateways and workers know of a stream: pp:{stream}:entries, sizes, totals, idem:...
_STREAMS = "~pp:{*"
_APPEND = (
    f"{_SCRIPTS} +watch +xadd +hincrby +set +get +hget +hmget +xlen +xrange +xrevrange +xread +xinfo|stream +exists"
)
# Of people and keys: sessions, logins under way, limits, and when a key was last used.
_DOORS = "~pp:session* ~pp:login* ~pp:oidc* ~pp:limit:* ~pp:key-used*"
_KNOWN = "(db=0 %R~pp:keys %R~pp:workers +hget +hgetall +hmget +hvals +hlen +hkeys +exists)"
_DOOR_KEEPER = f"(db=0 {_DOORS} ~pp:receipt-secret {_ANY_DATA})"
# Celery and kombu take what they like of a database of their own.
_CELERY = "(db=1 ~* &* +@all -@admin -@dangerous -function -script|flush -script|kill -script|debug -move -copy +info)"
_LOADING = f"db=0 {_STREAMS} ~pp:workers ~pp:budget:* {_ANY_DATA} {_SESSION} {_TRANSACTION} {_CELERY}"

RULES: Mapping[str, str] = {
    ADMIN: "~* &* +@all",
    GATEWAY: f"db=0 {_STREAMS} {_APPEND} {_SESSION} {_TRANSACTION} {_DOOR_KEEPER} {_KNOWN}",
    WORKERS: _LOADING,
    DAEMON: _LOADING,
    # Launches runs, so it writes tasks; of events it knows nothing.
    WEB: f"db=0 {_DOORS} {_ANY_DATA} {_SESSION} {_TRANSACTION} {_KNOWN} {_CELERY}",
}


def secret_name(user: str) -> str:
    """The file of the user's password in `secrets/`; the admin's has the server's name."""
    return "valkey" if user == ADMIN else f"valkey-{user}"


def acl_lines(passwords: Mapping[str, str]) -> list[str]:
    """The lines `user ...` of valkey.conf, with hashes of the passwords. Nobody gets in without a name."""
    lines = ["user default off resetpass resetkeys resetchannels -@all"]
    for name, rules in RULES.items():
        digest = hashlib.sha256(passwords[name].encode()).hexdigest()
        lines.append(f"user {name} reset on #{digest} resetchannels -@all {rules}")
    return lines
