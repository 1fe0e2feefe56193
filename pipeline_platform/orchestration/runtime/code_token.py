"""A shared secret between Dagster's processes and a code server that listens on TCP.

Whoever reaches a code server may start runs, reload code and end the server. On a Unix socket the folder decides who
that is. On TCP, for a code server on another host, every call has to carry the token of PIPELINE_CODE_TOKEN. It is sent
in clear: keep that network private, or carry it through TLS.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import wraps
from typing import Any

import grpc
from dagster._grpc.client import DagsterGrpcClient

HEADER = "pipeline-code-token"
HEALTH = "/grpc.health.v1.Health/"  # says that the server is there, and nothing else


class TokenCheck(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses every call without the token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._refuse = grpc.unary_unary_rpc_method_handler(_refuse)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """gRPC's hook, before the call is looked at."""
        given = [value for name, value in handler_call_details.invocation_metadata or () if name == HEADER]
        good = len(given) == 1 and hmac.compare_digest(str(given[0]).encode(), self._token)
        if good or handler_call_details.method.startswith(HEALTH):
            return continuation(handler_call_details)
        return self._refuse


def _refuse(_request: object, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "Calls to this code server carry the token of PIPELINE_CODE_TOKEN.")


def present_token(token: str) -> None:
    """Makes every client that this process makes from now on carry the token; Dagster has no setting that hides one.

    `additional_metadata` of workspace.yaml would do it, and would show the token in the UI.
    """
    stock = DagsterGrpcClient.__init__

    @wraps(stock)
    def made(self: DagsterGrpcClient, *arguments: Any, **more: Any) -> None:
        stock(self, *arguments, **more | {"metadata": [*(more.get("metadata") or ()), (HEADER, token)]})

    DagsterGrpcClient.__init__ = made  # type: ignore[method-assign]
