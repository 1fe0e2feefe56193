"""F1: who may talk to a code server, and whose code a worker executes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from dagster._core.code_pointer import CodePointer, FileCodePointer, ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.__generated__ import dagster_api_pb2
from dagster._grpc.client import DagsterGrpcClient

from pipeline_platform.local.ports import free_port
from pipeline_platform.local.probes import answers_at, listens
from pipeline_platform.orchestration.runtime.code_token import HEADER
from pipeline_platform.orchestration.runtime.warm_jobs import ForeignCodeError, WarmJob, require_allowed
from pipeline_platform_tests.oracle import wait_for

SERVER = [sys.executable, "-m", "pipeline_platform.orchestration.runtime.code_server", "--log-level", "warning"]
CODE = """
import dagster as dg
defs = dg.Definitions()
"""
OURS = ("pipeline_platform.orchestration.definitions:definitions",)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "some_code.py"
    path.write_text(CODE)
    return path


def _start(code: Path, *options: str, token: str = "") -> subprocess.Popen[str]:
    env = {**os.environ, "PIPELINE_CODE_TOKEN": token, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen([*SERVER, "--python-file", str(code), *options], env=env, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def on_tcp(code: Path) -> Iterator[int]:
    port = free_port()
    server = _start(code, "--host", "127.0.0.1", "--port", str(port), token="a shared secret")
    try:
        wait_for("the server listens", listens("127.0.0.1", port), 60)
        yield port
    finally:
        server.kill()
        server.communicate()


def test_on_tcp_it_does_not_start_without_a_token(code: Path) -> None:
    server = _start(code, "--host", "127.0.0.1", "--port", str(free_port()))
    _, said = server.communicate(timeout=60)
    assert server.returncode == 1
    assert "set PIPELINE_CODE_TOKEN" in said


def test_on_tcp_every_call_carries_the_token(on_tcp: int) -> None:
    """Every method of Dagster's API, so that one that a newer version adds is asked, too."""
    for metadata in ((), ((HEADER, "wrong"),), ((HEADER, "a shared secret"), (HEADER, "a shared secret"))):
        client = DagsterGrpcClient(host="127.0.0.1", port=on_tcp, metadata=metadata)
        with pytest.raises(DagsterUserCodeUnreachableError) as refused:
            client.ping("x")
        assert isinstance(refused.value.__cause__, grpc.RpcError)
        assert refused.value.__cause__.code() is grpc.StatusCode.UNAUTHENTICATED
    good = DagsterGrpcClient(host="127.0.0.1", port=on_tcp, metadata=[(HEADER, "a shared secret")])
    assert good.ping("x")["echo"] == "x"
    with grpc.insecure_channel(f"127.0.0.1:{on_tcp}") as channel:
        methods = dagster_api_pb2.DESCRIPTOR.services_by_name["DagsterApi"].methods_by_name
        assert "ShutdownServer" in methods
        for name in methods:
            call = channel.unary_stream(f"/api.DagsterApi/{name}")
            with pytest.raises(grpc.RpcError) as error:
                list(call(b"", timeout=10))
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED, name


def test_present_token_makes_clients_carry_it(on_tcp: int) -> None:
    script = (
        "import sys; from dagster._grpc.client import DagsterGrpcClient as C;"
        "from pipeline_platform.orchestration.runtime.code_token import present_token;"
        "present_token('a shared secret'); print(C(host='127.0.0.1', port=int(sys.argv[1])).ping('hello'))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(on_tcp)], capture_output=True, text=True, check=True)
    assert "hello" in done.stdout


def test_a_second_server_on_the_socket_is_refused_and_a_dead_ones_path_is_taken(code: Path, tmp_path: Path) -> None:
    path = tmp_path / "code.sock"
    first = _start(code, "--socket", str(path))
    try:
        wait_for("the first listens", answers_at(path), 60)
        second = _start(code, "--socket", str(path))
        _, said = second.communicate(timeout=60)
        assert (second.returncode, "is taken" in said) == (1, True)
        assert answers_at(path)()
    finally:
        first.kill()
        first.communicate()
    assert path.exists()  # killed: it leaves its path
    third = _start(code, "--socket", str(path))
    try:
        wait_for("the third listens", answers_at(path), 60)
        assert path.stat().st_mode & 0o077 == 0
    finally:
        third.kill()
        third.communicate()


@pytest.mark.parametrize(
    "pointer",
    [
        FileCodePointer("/tmp/mine.py", "definitions"),
        ModuleCodePointer("os", "system"),
        ModuleCodePointer("pipeline_platform.orchestration.definitions", "load_specs"),
        CodePointer.from_python_package("pipeline_platform.orchestration.definitions", "definitions", None),
    ],
    ids=lambda pointer: pointer.describe(),
)
def test_a_worker_loads_no_code_but_ours(pointer: CodePointer) -> None:
    with pytest.raises(ForeignCodeError, match="This worker executes"):
        require_allowed(pointer, OURS)
    origin = ReconstructableJob(ReconstructableRepository(pointer), "job").get_python_origin()
    with pytest.raises(ForeignCodeError):
        WarmJob.from_origin(origin, OURS)


def test_a_worker_loads_ours() -> None:
    require_allowed(ModuleCodePointer("pipeline_platform.orchestration.definitions", "definitions"), OURS)
