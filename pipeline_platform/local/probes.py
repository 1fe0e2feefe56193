"""Readiness probes: does a service do its work?"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import requests


def http_ok(url: str) -> Callable[[], bool]:
    """Whether a GET of `url` answers 200."""

    def probe() -> bool:
        try:
            return requests.get(url, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    return probe


def listens(host: str, port: int) -> Callable[[], bool]:
    """Whether something accepts connections there."""

    def probe() -> bool:
        try:
            with socket.create_connection((host, port), timeout=2):
                return True
        except OSError:
            return False

    return probe


def answers_at(path: Path) -> Callable[[], bool]:
    """Whether something accepts connections on the Unix socket."""

    def probe() -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(2)
            try:
                client.connect(os.fspath(path))
            except OSError:
                return False
            return True

    return probe


def appears(path: Path) -> Callable[[], bool]:
    """Whether the file is there."""
    return path.exists


def daemon_beats(dagster_database_url: str) -> Callable[[], bool]:
    """Whether Dagster's daemon has written a heartbeat since this probe was made."""
    since = time.time()

    def probe() -> bool:
        try:
            with psycopg.connect(dagster_database_url, connect_timeout=2) as connection:
                row = connection.execute(
                    "select extract(epoch from max(timestamp at time zone 'UTC')) from daemon_heartbeats"
                ).fetchone()
        except psycopg.Error:
            return False
        return row is not None and row[0] is not None and float(row[0]) > since

    return probe
