"""Values between ops: handed on once, again to an op that is tried again, and gone with the run."""

# No postponed annotations here: Dagster reads them at run time.

import gc
import weakref

import dagster as dg

from pipeline_platform.orchestration.resources import take_once


class Value:
    """Something that can be watched."""


made: list[weakref.ref[Value]] = []
tries: list[bool] = []


@dg.op
def make() -> Value:
    """Makes a value that nobody else holds."""
    value = Value()
    made.append(weakref.ref(value))
    return value


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def take(value: Value) -> None:
    """Fails the first time."""
    tries.append(value is made[-1]())
    if len(tries) == 1:
        raise RuntimeError("the first time")


@dg.job(resource_defs={"io_manager": take_once}, executor_def=dg.in_process_executor)
def hand_on() -> None:
    """A value from one op to the next."""
    take(make())


def test_a_value_is_there_for_another_try_and_gone_with_the_run() -> None:
    """Without the garbage collector, which comes by too seldom for values of 100 MB."""
    made.clear()
    tries.clear()
    gc.disable()
    try:
        with dg.instance_for_test() as instance:
            with dg.execute_job(dg.reconstructable(hand_on), instance) as result:
                assert result.success
            assert tries == [True, True]
            assert made[0]() is None
    finally:
        gc.enable()
