"""The supervisor: order, restarts, a clean stop, and nobody left behind whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_platform.errors import PlatformError
from pipeline_platform.local.process_table import find, is_alive, session_members, start_mark
from pipeline_platform.local.processes import Service, Step
from pipeline_platform.local.reaper import Target, follow
from pipeline_platform.local.service_logs import ServiceLog
from pipeline_platform.local.state import ServiceState, end_leftovers, read_services, write_services
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.local.units import Unit, backoff

# Ignores SIGTERM and forks two children, one of which leaves the process group: the worst that is usual.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for leaves in (True, False):
    if os.fork() == 0:
        if leaves:
            os.setpgid(0, 0)
        break
os.write(1, b"up\\n")
time.sleep(600)
"""

# A parent as `up` is: PostgreSQL and the stubborn service under one supervisor, until a signal.
PARENT = """
import sys
from pathlib import Path
from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.lock import hold
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.processes import Service, Step
from pipeline_platform.local.state import end_leftovers
from pipeline_platform.local.supervisor import Supervisor

with hold(Path(sys.argv[1])) as state_dir:
    end_leftovers(state_dir)
    server = PostgresServer.prepare(state_dir, server_account(), durable=False)
    heard = []
    stubborn = Service("stubborn", [sys.executable, "-c", sys.argv[2]], lambda: len(heard) == 3, stop_timeout=0.5)
    plan = [server.service(), stubborn, Step("say", lambda: print("all up", flush=True))]
    Supervisor(plan, lambda name, line: heard.append(line) if name == "stubborn" else None, state_dir).run()
"""


def script(code: str, name: str = "script", ready: Callable[[], bool] = lambda: True, **options: float) -> Service:
    """A Python service; `options` are its timeouts."""
    return Service(
        name,
        [sys.executable, "-I", "-S", "-c", code],
        ready,
        stop_timeout=options.get("stop_timeout", 10.0),
        start_timeout=options.get("start_timeout", 60.0),
    )


def fast_clock() -> float:
    """Ten times as fast as real time, to see seconds of backoff in a moment."""
    return time.monotonic() * 10


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def start_parent(state_dir: Path) -> subprocess.Popen[bytes]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(state_dir), STUBBORN], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"all up\n"
    return parent


def everyone(parent: subprocess.Popen[bytes]) -> set[int]:
    """Every living descendant, whatever its session: PostgreSQL's backends lead sessions of their own."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and find(int(name)):
            try:
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
    found, queue = set(), [parent.pid]
    while queue:
        for pid in children.get(queue.pop(), []):
            found.add(pid)
            queue.append(pid)
    return found


def reapers_of(parent: subprocess.Popen[bytes]) -> list[int]:
    name = b"pipeline_platform.local.reaper"
    return [pid for pid in everyone(parent) if name in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_services_start_in_order_with_steps_between_and_stop_in_reverse(state_dir: Path) -> None:
    lines: list[tuple[str, str]] = []
    order: list[str] = []
    says = "import signal, sys, time\nsignal.signal(15, lambda *a: (print('bye', flush=True), sys.exit(0)))\n"
    says += "print('hello', flush=True)\ntime.sleep(600)"

    def heard(name: str) -> Callable[[], bool]:
        return lambda: (name, "hello") in lines

    plan: list[Service | Step] = [
        script(says, "first", heard("first")),
        Step("between", lambda: order.append("first up" if heard("first")() else "first down")),
        script(says, "second", heard("second")),
    ]
    supervisor = Supervisor(plan, lambda name, line: lines.append((name, line)), state_dir)
    assert supervisor.start()
    assert order == ["first up"]
    assert [(each.name, each.state, each.restarts) for each in read_services(state_dir)] == [
        ("first", "ready", 0),
        ("second", "ready", 0),
    ]
    supervisor.stop()
    supervisor.stop()  # again does nothing
    assert [name for name, line in lines if line == "bye"] == ["second", "first"]
    assert {each.state for each in read_services(state_dir)} == {"stopped"}
    assert (state_dir / "logs" / "first.log").read_text() == "hello\nbye\n"


def test_leaves_start_and_stop_together(state_dir: Path) -> None:
    lines: list[tuple[str, str]] = []

    def heard(name: str, line: str) -> Callable[[], bool]:
        return lambda: (name, line) in lines

    # Each of two leaves waits for the other, when it starts and when it stops; what they need goes last.
    meets = "import pathlib, signal, sys, time\n" + (
        "def meet(what):\n"
        "    pathlib.Path(sys.argv[1], what + sys.argv[2]).touch()\n"
        "    while not pathlib.Path(sys.argv[1], what + sys.argv[3]).exists(): time.sleep(0.01)\n"
        "def stop(*_):\n    meet('stop'); print('bye', flush=True); sys.exit()\n"
        "signal.signal(signal.SIGTERM, stop); meet('start'); print('hello', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    plan: list[Service | Step] = [script("import time; time.sleep(600)", "root")]
    for name, other in (("left", "right"), ("right", "left")):
        argv = [sys.executable, "-c", meets, str(state_dir), name, other]
        plan.append(Service(name, argv, heard(name, "hello"), leaf=True, start_timeout=20.0))
    steps: list[str] = []
    plan.append(Step("after", lambda: steps.extend(each.state for each in read_services(state_dir))))
    supervisor = Supervisor(plan, lambda name, line: lines.append((name, line)), state_dir)
    assert supervisor.start()
    assert steps == ["ready", "ready", "ready"]
    supervisor.stop()
    assert {name for name, line in lines if line == "bye"} == {"left", "right"}


def test_a_dead_service_is_restarted_with_growing_waits_and_without_its_grandchildren(state_dir: Path) -> None:
    pids: list[int] = []
    waits: list[str] = []
    dies = "import os, time\npid = os.fork()\nif pid == 0: time.sleep(600)\nprint(pid, flush=True)\nos._exit(3)"

    def emit(name: str, line: str) -> None:
        if name == "script":
            pids.append(int(line))
            if len(pids) == 4:
                supervisor.request_stop()
        elif "again in" in line:
            waits.append(line.removeprefix("script ended with exit code 3; starting it "))

    supervisor = Supervisor([script(dies)], emit, state_dir, clock=fast_clock)
    # The first start has to succeed: it is ready as soon as it runs.
    assert supervisor.start()
    supervisor.watch()
    assert waits[:3] == ["again in 0.5 s", "again in 1 s", "again in 2 s"]
    assert read_services(state_dir)[0].restarts == 3
    supervisor.stop()
    assert eventually(lambda: not any(is_alive(pid) for pid in pids))


def test_a_restarted_service_is_ready_again(state_dir: Path) -> None:
    lines: list[str] = []

    def emit(name: str, line: str) -> None:
        lines.append(line)
        if line == "script is ready again":
            supervisor.request_stop()

    supervisor = Supervisor([script("import time; time.sleep(600)")], emit, state_dir)
    supervisor.start()
    pid = read_services(state_dir)[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    supervisor.watch()
    now = read_services(state_dir)[0]
    assert (now.state, now.restarts) == ("ready", 1)
    assert now.pid not in (None, pid)
    assert "script was ended by SIGKILL; starting it again in 0.5 s" in lines
    supervisor.stop()


def test_a_second_request_to_stop_does_not_wait_for_the_stubborn(state_dir: Path) -> None:
    lines: list[str] = []
    service = script(STUBBORN, "stubborn", lambda: len(lines) == 3, stop_timeout=600.0)
    supervisor = Supervisor([service], lambda name, line: lines.append(line), state_dir)
    assert supervisor.start()
    session = read_services(state_dir)[0].pid or 0
    supervisor.request_stop()
    supervisor.request_stop()
    supervisor.stop()
    assert session_members(session) == []


def test_backoff_doubles_up_to_half_a_minute() -> None:
    assert [backoff(n) for n in (1, 2, 3, 7, 8, 1000)] == [0.5, 1, 2, 30, 30, 30]


def test_a_healthy_minute_forgives_earlier_deaths(state_dir: Path) -> None:
    log = ServiceLog(state_dir / "logs" / "any.log")
    unit = Unit(script(""), log, state="ready", failures=4, launched_at=100.0)
    log.close()
    assert unit.count_death(now=159.0) == 8
    assert unit.count_death(now=160.0) == 0.5
    assert unit.due_at == 160.5


def test_a_service_that_never_gets_ready_stops_the_rest_and_shows_its_last_lines(state_dir: Path) -> None:
    chatty = "import time\nfor n in range(30): print('line', n, flush=True)\ntime.sleep(600)"
    good = script("import time; time.sleep(600)", "good")
    plan = [good, script(chatty, "chatty", lambda: False, start_timeout=0.5)]
    supervisor = Supervisor(plan, lambda name, line: None, state_dir)
    with pytest.raises(
        PlatformError, match=r"chatty was not ready after 0.5 s. Its last lines:\n  line 10\n"
    ) as caught:
        supervisor.start()
    assert str(caught.value).endswith("line 29")
    assert [(each.name, each.state) for each in read_services(state_dir)] == [("good", "stopped"), ("chatty", "failed")]


def test_a_program_that_is_missing_or_dies_at_once_is_a_clear_error(state_dir: Path) -> None:
    for argv, message in (
        (["/no/such/program"], r"/no/such/program cannot be started: No such file"),
        ([sys.executable, "-c", "raise SystemExit('out of luck')"], r"exit code 1. Its last lines:\n  out of luck"),
    ):
        supervisor = Supervisor([Service("bad", argv, lambda: False)], lambda name, line: None, state_dir)
        with pytest.raises(PlatformError, match=message):
            supervisor.start()


def test_the_death_of_a_critical_service_ends_the_stack(state_dir: Path) -> None:
    code = "import time; time.sleep(0.3)"
    critical = Service("core", [sys.executable, "-c", code], lambda: True, critical=True)
    supervisor = Supervisor(
        [script("import time; time.sleep(600)", "other"), critical], lambda name, line: None, state_dir
    )
    with pytest.raises(PlatformError, match="core ended with exit code 0; everything else is stopped"):
        supervisor.run()
    assert [each.state for each in read_services(state_dir)] == ["stopped", "failed"]


def test_a_failing_step_stops_what_was_started(state_dir: Path) -> None:
    def fail() -> None:
        raise PlatformError("the migration failed")

    plan: list[Service | Step] = [script("import time; time.sleep(600)"), Step("migrate", fail)]
    with pytest.raises(PlatformError, match="migration failed"):
        Supervisor(plan, lambda name, line: None, state_dir).start()
    assert read_services(state_dir)[0].state == "stopped"


def test_a_closed_output_of_ours_does_not_block_a_child(state_dir: Path) -> None:
    def broken(name: str, line: str) -> None:
        raise BrokenPipeError

    done = state_dir / "done"
    code = f"for n in range(20000): print('x' * 100)\nopen({str(done)!r}, 'w').close()\nimport time; time.sleep(600)"
    supervisor = Supervisor([script(code, ready=done.exists)], broken, state_dir)
    assert supervisor.start()
    supervisor.stop()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_parent_is_a_clean_stop(state_dir: Path, signum: signal.Signals) -> None:
    with start_parent(state_dir) as parent:
        family = everyone(parent)
        parent.send_signal(signum)
        assert parent.wait(20) == 0
    assert not [pid for pid in family if is_alive(pid)]
    assert {each.state for each in read_services(state_dir)} == {"stopped"}
    assert not (state_dir / "postgres" / "data" / "postmaster.pid").exists()


def test_a_killed_parent_leaves_nobody_and_the_next_up_finds_order(state_dir: Path) -> None:
    with start_parent(state_dir) as parent:
        family = everyone(parent)
        assert len(family) >= 8  # the reaper, three stubborn ones, the postmaster and its backends
        services = family - set(reapers_of(parent))
        parent.kill()
    with start_parent(state_dir) as successor:  # at once, while the first one's reaper is still at work
        assert not [pid for pid in services if is_alive(pid)]
        heirs = everyone(successor)
        successor.terminate()
        assert successor.wait(20) == 0
    assert eventually(lambda: not [pid for pid in family | heirs if is_alive(pid)])


def test_with_its_reaper_killed_too_the_kernel_ends_the_direct_children_and_the_next_up_the_rest(
    state_dir: Path,
) -> None:
    with start_parent(state_dir) as parent:
        family = everyone(parent)
        pids = {each.name: each.pid or 0 for each in read_services(state_dir)}
        parent.send_signal(signal.SIGSTOP)  # or it would start another reaper
        for pid in reapers_of(parent):
            os.kill(pid, signal.SIGKILL)
        parent.kill()
    assert eventually(lambda: not is_alive(pids["postgres"]))
    assert len(session_members(pids["stubborn"])) == 3  # they ignore the signal
    assert end_leftovers(state_dir, patience=0.2) == ["stubborn"]
    assert eventually(lambda: not [pid for pid in family if is_alive(pid)])


def test_a_killed_reaper_is_replaced_by_one_that_knows_everybody(state_dir: Path) -> None:
    with start_parent(state_dir) as parent:
        family = everyone(parent)
        [first] = reapers_of(parent)
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: not is_alive(first) and len(reapers_of(parent)) == 1)
        parent.kill()
    assert eventually(lambda: not [pid for pid in family if is_alive(pid)])


def test_the_reaper_reads_its_list() -> None:
    lines = [b"+ 10 15 5.0\n", b"+ 11 2 30.0\n", b"+ 12 15 5.0\n", b"- 10\n", b"+ 13"]
    assert follow(lines) == [Target(12, 15, 5.0), Target(11, 2, 30.0)]


def test_states_of_processes_that_ended_without_word_are_stopped(state_dir: Path) -> None:
    mine, mark = os.getpid(), start_mark(os.getpid())
    assert mark is not None
    since = "2026-01-01T00:00:00+00:00"
    alive = ServiceState("alive", mine, "ready", 0, since, mark)
    reused = ServiceState("reused", mine, "ready", 2, since, mark + "0")
    waiting = ServiceState("waiting", None, "backoff", 3, since)
    write_services(state_dir, [alive, reused, waiting])
    assert read_services(state_dir) == [alive, ServiceState("reused", None, "stopped", 2, since, mark + "0"), waiting]
    assert read_services(state_dir / "nowhere") == []


def test_a_log_is_bounded(state_dir: Path) -> None:
    path = state_dir / "logs" / "chatty.log"
    log = ServiceLog(path, limit=1000)
    for number in range(100):
        log.write(f"line {number:04} {'x' * 40}")
    log.close()
    log.write("after the end")
    older = path.with_name("chatty.log.1")
    assert path.stat().st_size <= 1000
    assert older.stat().st_size <= 1000
    kept = (older.read_text() + path.read_text()).splitlines()
    assert kept == [f"line {number:04} {'x' * 40}" for number in range(100 - len(kept), 100)]
