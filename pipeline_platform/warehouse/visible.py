"""When a loaded batch became visible: the time of the commit that loaded it.

PostgreSQL keeps it when `track_commit_timestamp` is on, so that nothing has to be written after the commit. The load is
the last change of its ledger row, so the row's own transaction is the load's. A row that was written again since, by
hand or by a restore, has a later one and is left out. The server notes the time just before it syncs the commit to
disk, so readers see the batch that one sync later.
"""

from __future__ import annotations

# Of `assets`; null when it is not known. Without the CASE the function fails where the setting is off.
VISIBLE_AT = """
case when assets.state = 'loaded' and current_setting('track_commit_timestamp')::boolean then (
    select committed from pg_xact_commit_timestamp(assets.xmin) committed
    where committed < assets.loaded_at + interval '1 minute'
) end
"""
