"""What every source's budget does: no more than is allowed, live work first, pauses for everybody."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
import redis

from pipeline_platform.core.budgets import Allowance, Budget, Failing, Priority
from pipeline_platform.errors import QueueUnavailableError, SettingError, SourceUnavailableError
from pipeline_platform.queue.budgets import RedisBudget
from pipeline_platform.queue.budgets_memory import MemoryBudget
from pipeline_platform.queue.connection import connect

LIVE, BACKFILL = Priority.LIVE, Priority.BACKFILL
SLOW = Allowance(weight=3610, seconds=3600, burst=10, reserve=4)  # one a second: nothing comes back within a test
FAST = Allowance(weight=70, seconds=1, burst=20, reserve=5)  # 50 a second

Open = Callable[..., Budget]


@pytest.fixture(params=["memory", "redis"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Opens budgets; of one name, they are one budget."""
    if request.param == "redis":
        client = request.getfixturevalue("client")
        return lambda allowance, source="binance", patience=0.0: RedisBudget(
            client, source, allowance, patience=patience
        )
    known: dict[str, MemoryBudget] = {}

    def open_budget(allowance: Allowance, source: str = "binance", patience: float = 0.0) -> MemoryBudget:
        budget = known.setdefault(source, MemoryBudget(source, allowance, patience=patience))
        budget._patience = patience
        return budget

    return open_budget


def _refused(budget: Budget, weight: float, priority: Priority) -> float:
    """How long a refused taker is told to wait."""
    with pytest.raises(SourceUnavailableError) as caught:
        budget.take(weight, priority)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_the_burst_is_there_at_once_and_not_more(opened: Open) -> None:
    budget = opened(SLOW)
    for _ in range(10):
        budget.take(1, LIVE)
    assert 0.5 < _refused(budget, 1, LIVE) <= 1
    assert 1.5 < _refused(budget, 2, LIVE) <= 2


def test_a_refused_request_costs_nothing(opened: Open) -> None:
    budget = opened(SLOW)
    budget.take(8, LIVE)
    for _ in range(50):
        _refused(budget, 4, LIVE)
    budget.take(2, LIVE)


def test_a_backfill_leaves_the_reserve_to_live_work(opened: Open) -> None:
    budget = opened(SLOW)
    for _ in range(6):
        budget.take(1, BACKFILL)
    assert 0.5 < _refused(budget, 1, BACKFILL) <= 1
    budget.take(4, LIVE)
    assert _refused(budget, 1, BACKFILL) > 4.5


def test_a_backfills_request_that_needs_the_reserve_waits_for_a_full_burst(opened: Open) -> None:
    budget = opened(SLOW)
    budget.take(8, BACKFILL)
    _refused(budget, 1, BACKFILL)
    other = opened(SLOW, source="kraken")
    other.take(1, LIVE)
    assert 0.5 < _refused(other, 8, BACKFILL) <= 1


def test_a_backfill_waits_while_live_work_waits(opened: Open) -> None:
    budget = opened(FAST)
    budget.take(20, LIVE)
    told = _refused(budget, 20, LIVE)
    assert 0.3 < told <= 0.4
    time.sleep(0.25)  # there is enough for a small request of a backfill now, and the reserve
    assert _refused(budget, 1, BACKFILL) > 0.1
    time.sleep(told - 0.25)
    budget.take(20, LIVE)


def test_live_work_that_gives_up_does_not_hold_a_backfill_for_ever(opened: Open) -> None:
    budget = opened(FAST, patience=3.0)
    budget.take(20, LIVE)
    impatient = opened(FAST)
    _refused(impatient, 10, LIVE)
    budget = opened(FAST, patience=3.0)
    begun = time.monotonic()
    budget.take(1, BACKFILL)
    assert 1 < time.monotonic() - begun < 3


def test_taking_waits_until_there_is_enough(opened: Open) -> None:
    budget = opened(FAST, patience=5)
    budget.take(20, LIVE)
    begun = time.monotonic()
    budget.take(15, LIVE)
    assert 0.25 < time.monotonic() - begun < 3


def test_a_pause_holds_everybody_of_the_source_and_nobody_else(opened: Open) -> None:
    budget, same, other = opened(SLOW), opened(SLOW), opened(SLOW, source="kraken")
    budget.pause(30)
    assert 29 < _refused(same, 1, LIVE) <= 30
    assert _refused(budget, 1, BACKFILL) > 29
    other.take(1, LIVE)


def test_a_short_pause_does_not_end_a_long_one(opened: Open) -> None:
    budget = opened(SLOW)
    budget.pause(30)
    budget.pause(1)
    assert _refused(budget, 1, LIVE) > 29


def test_after_a_pause_work_goes_on(opened: Open) -> None:
    budget = opened(SLOW, patience=2)
    budget.pause(0.2)
    begun = time.monotonic()
    budget.take(1, BACKFILL)
    assert 0.15 < time.monotonic() - begun < 2


def test_a_request_that_no_budget_could_allow_is_a_wrong_setting(opened: Open) -> None:
    with pytest.raises(SettingError, match=r"prices\.yaml"):
        opened(SLOW).take(11, LIVE)


def test_threads_together_never_pass_the_allowance(opened: Open) -> None:
    budget = opened(FAST, patience=5)
    times: list[float] = []
    end = time.monotonic() + 1.6

    def take() -> None:
        while time.monotonic() < end:
            budget.take(1, LIVE)
            times.append(time.monotonic())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    most = max(sum(1 for at in times if start <= at < start + 0.95) for start in times)
    assert most <= FAST.weight
    assert len(times) > 60


def test_live_work_is_served_while_backfills_hammer(opened: Open) -> None:
    budget = opened(FAST, patience=5)
    end = time.monotonic() + 1.5
    waits: list[float] = []
    taken = [0]

    def hammer() -> None:
        while time.monotonic() < end:
            budget.take(2, BACKFILL)
            taken[0] += 1

    threads = [threading.Thread(target=hammer) for _ in range(6)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        begun = time.monotonic()
        budget.take(4, LIVE)
        waits.append(time.monotonic() - begun)
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    assert max(waits) < 0.15
    assert taken[0] > 10


def test_failures_are_known_to_everybody_of_the_source_until_a_good_answer(opened: Open) -> None:
    budget, same, other = opened(SLOW), opened(SLOW), opened(SLOW, source="kraken")
    assert budget.failing("*", "candles of X") == [None, None]
    assert [each.count for each in budget.failed("*", "candles of X")] == [1, 1]
    assert [each.count for each in same.failed("*", "quotes of é|\n")] == [1, 1]  # they were under way together
    known = same.failing("*", "candles of X", "quotes of é|\n", "what")
    assert [each and each.count for each in known] == [1, 1, 1, None]
    assert other.failing("*") == [None]
    same.answered("*", "candles of X")
    assert [each and each.count for each in budget.failing("*", "candles of X", "quotes of é|\n")] == [None, None, 1]


def test_failures_last_since_the_first_and_are_forgotten_two_days_after_the_last(client: redis.Redis) -> None:
    clock = [1000.0]
    in_memory = MemoryBudget("binance", SLOW, clock=lambda: clock[0])
    in_redis = RedisBudget(client, "binance", SLOW)
    for hours in (0, 20, 20, 44):  # two workers at once
        clock[0] = 1000.0 + hours * 3600
        [found] = in_memory.failed("x")
    assert found == Failing(3, lasted=44 * 3600, ago=0)
    clock[0] += 49 * 3600
    assert in_memory.failing("x") == [None]
    assert in_memory.failed("x") == [Failing(1, lasted=0, ago=0)]
    now = time.time()
    client.hset("pp:budget:binance:failing", "x", f"3 {now - 44 * 3600:.3f} {now - 60:.3f}")
    client.hset("pp:budget:binance:failing", "y", f"3 {now - 99 * 3600:.3f} {now - 49 * 3600:.3f}")
    there, forgotten = in_redis.failing("x", "y")
    assert there is not None
    assert there.count == 3
    assert [there.lasted, there.ago] == pytest.approx([44 * 3600, 60], abs=30)
    assert forgotten is None
    assert [each.count for each in in_redis.failed("x", "y")] == [4, 1]
    assert 0 < client.ttl("pp:budget:binance:failing") <= 2 * 86_400


PROCESS = """
import sys, time
from pipeline_platform.core.budgets import Allowance, Priority
from pipeline_platform.queue.budgets import RedisBudget
from pipeline_platform.queue.connection import connect
with connect(sys.argv[1]) as client:
    budget = RedisBudget(client, "binance", Allowance(weight=70, seconds=1, burst=20, reserve=5), patience=5)
    sys.stdin.readline()
    end, taken = time.monotonic() + 1, 0
    while time.monotonic() < end:
        budget.take(1, Priority.LIVE)
        taken += 1
    print(taken)
"""


def test_processes_share_one_budget(redis_url: str) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, redis_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    time.sleep(1.5)  # all of them are at their line
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [int(process.communicate(timeout=30)[0]) for process in started]
    assert 50 <= sum(counts) <= 20 + 50 * 1.2 + 3
    assert min(counts) > 5


def test_a_budget_whose_server_is_away_is_unavailable() -> None:
    with connect("redis://127.0.0.1:1/0") as client:
        budget = RedisBudget(client, "binance", SLOW)
        with pytest.raises(QueueUnavailableError):
            budget.take(1, LIVE)
        with pytest.raises(QueueUnavailableError):
            budget.pause(1)


def test_a_budget_is_forgotten_when_it_no_longer_matters(client: redis.Redis) -> None:
    budget = RedisBudget(client, "binance", SLOW)
    budget.take(1, LIVE)
    assert 0 < client.pttl("pp:budget:binance") <= 71_000
    budget.pause(1000)
    assert client.pttl("pp:budget:binance") > 1_000_000
    RedisBudget(client, "kraken", SLOW).pause(1000)
    with pytest.raises(SourceUnavailableError):
        RedisBudget(client, "kraken", SLOW, patience=0).take(1, LIVE)
    assert client.pttl("pp:budget:kraken") > 1_000_000
