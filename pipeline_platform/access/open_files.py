"""How many files and connections a process may have open."""

from __future__ import annotations

import resource

MOST = 65_536  # beyond that the kernel's own tables are the bound, and some libraries walk through all numbers


def raise_open_files() -> int:
    """Raises the soft limit as far as the hard one lets it, and says what it is now. The usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
