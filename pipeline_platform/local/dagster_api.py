"""Dagster's GraphQL, as its own UI uses it: partitions of assets, and backfills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from pipeline_platform.errors import PermanentError, TransientError

TIMEOUT = 60.0
ENDED = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "CANCELED", "FAILED"}

_ASSET = """
query Asset($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    partitionDefinition { type }
    partitionKeysByDimension { name partitionKeys }
    backfillPolicy { description }
    assetPartitionStatuses {
      __typename
      ... on TimePartitionStatuses { ranges { startKey endKey status } }
    }
  }
}
"""
_KEYS = "query Assets { assetNodes { assetKey { path } } }"
_LAUNCH = """
mutation LaunchPartitionBackfill($backfillParams: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfillParams) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""
_STATUS = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on Error { message }
    ... on PartitionBackfill {
      id status numPartitions error { message }
      assetBackfillData {
        assetBackfillStatuses {
          __typename
          ... on AssetPartitionsStatusCounts {
            assetKey { path }
            numPartitionsTargeted numPartitionsInProgress numPartitionsMaterialized numPartitionsFailed
          }
        }
      }
    }
  }
}
"""

_CANCELED = """
query CanceledRuns($id: String!) {
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}], statuses: [CANCELED]}, limit: 1) {
    __typename
    ... on Error { message }
    ... on Runs { count }
  }
}
"""


@dataclass(frozen=True)
class Partitions:
    """An asset's partitions: the keys of each dimension, and of a single one those that are materialized."""

    dimensions: Mapping[str, Sequence[str]]
    materialized: frozenset[str]


@dataclass(frozen=True)
class BackfillStatus:
    """How far a backfill is, in partitions."""

    id: str
    state: str
    targeted: int
    materialized: int
    failed: int
    in_progress: int
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.state in ("COMPLETED", "COMPLETED_SUCCESS") and not self.failed


class DagsterApi:
    """The Dagster webserver at `url`, asked with an API key."""

    def __init__(self, url: str, api_key: str = "") -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        if api_key:
            self._session.headers["Authorization"] = f"Bearer {api_key}"

    def partitions(self, asset: str) -> Partitions:
        """The partitions of an asset, `prices/candles`. PermanentError when there is no such asset or partition."""
        found = self._ask(_ASSET, keys=[{"path": asset.split("/")}])["assetNodes"]
        if not found:
            known = sorted("/".join(each["assetKey"]["path"]) for each in self._ask(_KEYS)["assetNodes"])
            raise PermanentError(f"There is no asset {asset!r}. There are: {', '.join(known)}.")
        node = found[0]
        dimensions = {each["name"]: each["partitionKeys"] for each in node["partitionKeysByDimension"]}
        if not dimensions:
            raise PermanentError(f"{asset} has no partitions, so there is nothing to backfill.")
        keys = list(next(iter(dimensions.values()))) if len(dimensions) == 1 else []
        place = {key: number for number, key in enumerate(keys)}
        done: set[str] = set()
        for each in (node["assetPartitionStatuses"] or {}).get("ranges") or []:
            if each["status"] == "MATERIALIZED" and each["startKey"] in place and each["endKey"] in place:
                done |= set(keys[place[each["startKey"]] : place[each["endKey"]] + 1])
        return Partitions(dimensions, frozenset(done))

    def launch(
        self,
        asset: str,
        partitions: Sequence[str],
        *,
        title: str = "",
        tags: Mapping[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> str:
        """Starts a backfill and gives its id."""
        params: dict[str, Any] = {
            "assetSelection": [{"path": asset.split("/")}],
            "partitionNames": list(partitions),
            "fromFailure": False,
            "tags": [{"key": name, "value": value} for name, value in (tags or {}).items()],
        }
        if title:
            params["title"] = title
        if run_config:
            params["runConfigData"] = run_config
        answer = self._ask(_LAUNCH, backfillParams=params)["launchPartitionBackfill"]
        if answer["__typename"] != "LaunchBackfillSuccess":
            raise PermanentError(f"Dagster does not start the backfill: {answer.get('message', answer['__typename'])}")
        return str(answer["backfillId"])

    def status(self, backfill: str) -> BackfillStatus:
        """How a backfill is doing."""
        answer = self._ask(_STATUS, id=backfill)["partitionBackfillOrError"]
        if answer["__typename"] != "PartitionBackfill":
            raise PermanentError(f"Dagster knows no backfill {backfill}: {answer.get('message', '')}")
        counts = [
            each
            for each in (answer["assetBackfillData"] or {}).get("assetBackfillStatuses") or []
            if each["__typename"] == "AssetPartitionsStatusCounts"
        ]

        def total(name: str) -> int:
            return sum(each[name] for each in counts)

        return BackfillStatus(
            answer["id"],
            answer["status"],
            total("numPartitionsTargeted"),
            total("numPartitionsMaterialized"),
            total("numPartitionsFailed"),
            total("numPartitionsInProgress"),
            (answer["error"] or {}).get("message", ""),
        )

    def canceled_runs(self, backfill: str) -> int:
        """How many runs of a backfill were canceled: Dagster counts their partitions among the failed ones."""
        answer = self._ask(_CANCELED, id=backfill)["runsOrError"]
        return int(answer.get("count", 0))

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        try:
            answer = self._session.post(
                f"{self._url}/graphql", json={"query": query, "variables": variables}, timeout=TIMEOUT
            )
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise TransientError(
                f"Dagster does not answer at {self._url} ({type(error).__name__}). Is `pipeline-platform up` running?"
            ) from None
        if answer.status_code in (401, 403) and "error" in found:
            raise PermanentError(
                f"Dagster refuses: {found['error']} PIPELINE_API_KEY names a key with the scope operate."
            )
        if errors := found.get("errors"):
            raise PermanentError(f"Dagster refuses: {errors[0].get('message')}")
        data: dict[str, Any] = found["data"]
        return data
