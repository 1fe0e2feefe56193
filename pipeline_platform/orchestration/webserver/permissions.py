"""Our roles as Dagster's own permissions: it asks for them before a mutation, and its UI greys out what is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.permissions import LOCATION_SCOPED_PERMISSIONS, PermissionResult, Permissions

from pipeline_platform.access.identity import Identity
from pipeline_platform.access.roles import Role
from pipeline_platform.orchestration.runtime.who import USER_TAG

# What a new Dagster adds is the admins' until somebody decides otherwise.
_OPERATOR = frozenset(
    {
        Permissions.LAUNCH_PIPELINE_EXECUTION,
        Permissions.LAUNCH_PIPELINE_REEXECUTION,
        Permissions.TERMINATE_PIPELINE_EXECUTION,
        Permissions.START_SCHEDULE,
        Permissions.STOP_RUNNING_SCHEDULE,
        Permissions.EDIT_SENSOR,
        Permissions.LAUNCH_PARTITION_BACKFILL,
        Permissions.CANCEL_PARTITION_BACKFILL,
    }
)
_NEVER = frozenset({Permissions.EDIT_APP_MANAGED_COMPONENTS})  # not a feature of open source Dagster
GRANTED: Mapping[Role, frozenset[Permissions]] = {
    Role.VIEWER: frozenset(),
    Role.OPERATOR: _OPERATOR,
    Role.ADMIN: frozenset(Permissions) - _NEVER,
}
_NO_TAG = re.compile(r"[^A-Za-z0-9_.-]")
NOBODY = Identity("nobody", Role.VIEWER, "key")


class RoleContext(WorkspaceRequestContext):
    """What one request sees and may do. Without an identity it is a viewer's: a request that went around the gate."""

    @property
    def identity(self) -> Identity:
        """Who asks, as the gate has found out."""
        found = (getattr(self.source, "scope", None) or {}).get("identity")
        return found if isinstance(found, Identity) else NOBODY

    @property
    def show_instance_config(self) -> bool:
        """The configuration of the instance is for admins."""
        return self.identity.role is Role.ADMIN

    @property
    def permissions(self) -> Mapping[str, PermissionResult]:
        """Every permission of Dagster, and why it is missing: the UI shows that as a tooltip."""
        identity = self.identity
        missing = f"You are {identity.role} here; an {_needed(identity.role)} may do this."
        granted = GRANTED[identity.role]
        return {each: PermissionResult(each in granted, None if each in granted else missing) for each in Permissions}

    def permissions_for_location(self, *, location_name: str) -> Mapping[str, PermissionResult]:  # noqa: ARG002
        """The same in every code location."""
        return {each: found for each, found in self.permissions.items() if each in LOCATION_SCOPED_PERMISSIONS}

    def get_viewer_tags(self) -> dict[str, str]:
        """Who began a backfill; its runs take it over."""
        return {USER_TAG: self.identity.name}

    def get_reporting_user_tags(self) -> dict[str, str]:
        """Who reported an event of an asset by hand. Tags of events take fewer characters than those of runs."""
        return {USER_TAG: _NO_TAG.sub("_", self.identity.name)[:63]}


class RoleProcess(WorkspaceProcessContext):
    """Makes a `RoleContext` for each request."""

    def create_request_context(self, source: Any = None) -> RoleContext:
        """`source` is the connection; `read_only` is what everything else of Dagster falls back to."""
        return RoleContext(
            instance=self._instance,
            current_workspace=self.get_current_workspace(),
            process_context=self,
            version=self.version,
            source=source,
            read_only=True,
        )


def _needed(role: Role) -> str:
    return "operator or admin" if role is Role.VIEWER else "admin"
