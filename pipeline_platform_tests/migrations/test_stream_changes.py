"""A stream's tables through the life of its spec: what can be added, and what is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from pipeline_platform.core.streams import StreamSpec, parse_spec
from pipeline_platform.errors import DestructiveChangeError, PermanentError, TransientError
from pipeline_platform.warehouse.event_ids import purge_expired_ids
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform.warehouse.stream_changes import plan_changes
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    entry,
    execute,
    ledger_agrees,
    load_entries,
    minutes_agree,
    rows,
)

ODD = "50% :of 'it' \\\\ \\\""  # as it stands in YAML's double quotes


def readings(dimensions: str = "site: {}", measures: str = "a: {}", more: str = "") -> StreamSpec:
    """The stream `readings` with these fields."""
    return parse_spec(
        f"name: readings\ndimensions: {{{dimensions}}}\nmeasures: {{{measures}}}\n{more}", "readings.yaml"
    )


FIRST = readings()


def test_a_new_stream_gets_tables_and_views_and_the_others_stay(engine: sa.Engine) -> None:
    migrate(engine, [FIRST])
    _load(engine, FIRST, 0, site="x", a=1.0)
    said: list[str] = []
    other = parse_spec("name: other\ndimensions: [d]\nmeasures: [m]\n", "other.yaml")
    migrate(engine, [FIRST, other], say=said.append)
    assert said == ["other: create the stream's tables and views"]
    assert rows(engine, "select count(*) from other_1m") == [(0,)]
    assert rows(engine, "select site, a from readings") == [("x", 1.0)]


def test_an_added_dimension_is_empty_in_old_rows_and_tells_new_ones_apart(engine: sa.Engine) -> None:
    migrate(engine, [FIRST])
    _load(engine, FIRST, 0, site="x", a=1.0)
    wider = readings("site: {}, unit: {}")
    said: list[str] = []
    migrate(engine, [wider], say=said.append)
    assert said == ["readings: add the column readings_series.unit"]
    _load(engine, wider, 1, site="x", unit="C", a=2.0)
    _load(engine, wider, 2, site="x", unit="F", a=3.0)
    _load(engine, wider, 3, site="x", unit="", a=4.0)
    assert rows(engine, "select site, unit, a from readings order by a") == [
        ("x", "", 1.0),
        ("x", "C", 2.0),
        ("x", "F", 3.0),
        ("x", "", 4.0),
    ]
    assert rows(engine, "select unit, a_sum from readings_1m order by 1") == [("", 5.0), ("C", 2.0), ("F", 3.0)]
    assert _columns(engine, "readings") == ["ts", "received_at", "site", "a", "batch_id", "unit"]
    assert minutes_agree(engine, wider).holds


def test_an_added_dimension_with_a_default_has_it_in_old_rows(engine: sa.Engine) -> None:
    migrate(engine, [FIRST])
    _load(engine, FIRST, 0, site="x", a=1.0)
    wider = readings(f'site: {{}}, unit: {{default: "{ODD}"}}')
    default = wider.dimensions["unit"].default
    assert default == "50% :of 'it' \\ \""
    migrate(engine, [wider])
    _load(engine, wider, 1, site="x", a=2.0)
    assert rows(engine, "select distinct unit from readings") == [(default,)]
    assert rows(engine, "select count(*) from readings_series") == [(1,)]
    assert rows(engine, "select unit, a_sum from readings_1m") == [(default, 3.0)]


def test_a_default_with_odd_characters_is_the_same_in_a_new_stream(engine: sa.Engine) -> None:
    spec = readings(f'site: {{}}, unit: {{default: "{ODD}", description: "{ODD}"}}')
    migrate(engine, [spec])
    _load(engine, spec, 0, site="x", a=1.0)
    execute(engine, "insert into readings_series (site) values ('y')")
    assert rows(engine, "select distinct unit from readings_series") == [(spec.dimensions["unit"].default,)]
    migrate(engine, [spec], say=_silent)


def test_an_added_measure_is_null_in_old_rows(engine: sa.Engine) -> None:
    migrate(engine, [FIRST])
    _load(engine, FIRST, 0, site="x", a=1.0)
    wider = readings(measures="a: {}, b: {}")
    said: list[str] = []
    migrate(engine, [wider], say=said.append)
    assert "readings: add the column readings_events.b" in said
    assert "readings: add the column readings_minutes.b_m2" in said
    _load(engine, wider, 1, site="x", a=2.0, b=5.0)
    assert rows(engine, "select a, b from readings order by a") == [(1.0, None), (2.0, 5.0)]
    assert rows(engine, "select a_count, b_count, b_sum, b_avg, b_first from readings_1m") == [(2, 1, 5.0, 5.0, 5.0)]
    assert minutes_agree(engine, wider).holds
    assert ledger_agrees(engine, wider).holds


def test_a_field_put_first_does_not_mix_up_the_columns(engine: sa.Engine) -> None:
    migrate(engine, [FIRST])
    _load(engine, FIRST, 0, site="x", a=1.0)
    wider = readings("zone: {default: here}, site: {}", "z: {required: false}, a: {}")
    migrate(engine, [wider])
    _load(engine, wider, 1, zone="there", site="y", z=9.0, a=2.0)
    assert rows(engine, "select zone, site, z, a from readings order by a") == [
        ("here", "x", None, 1.0),
        ("there", "y", 9.0, 2.0),
    ]
    assert rows(engine, "select zone, site, z_sum, a_sum from readings_1m order by a_sum") == [
        ("here", "x", 0.0, 1.0),
        ("there", "y", 9.0, 2.0),
    ]


def test_a_series_stays_unique_over_all_its_dimensions(engine: sa.Engine) -> None:
    migrate(engine, [FIRST])
    migrate(engine, [readings("site: {}, unit: {}")])
    execute(engine, "insert into readings_series (site, unit) values ('x', 'C'), ('x', 'F')")
    with pytest.raises(sa.exc.IntegrityError, match="readings_series_key"):
        execute(engine, "insert into readings_series (site, unit) values ('x', 'C')")
    assert rows(engine, "select indexname from pg_indexes where tablename = 'readings_series' order by 1") == [
        ("readings_series_key",),
        ("readings_series_pkey",),
    ]


def test_a_process_that_still_has_the_old_spec_does_not_mix_up_the_series(engine: sa.Engine) -> None:
    wider = readings("site: {}, unit: {default: C}")
    migrate(engine, [FIRST])
    migrate(engine, [wider])
    _load(engine, wider, 0, site="x", unit="C", a=1.0)
    _load(engine, wider, 1, site="x", unit="F", a=2.0)
    with pytest.raises(TransientError, match="reload its definitions"):
        _load(engine, FIRST, 2, site="x", a=3.0)
    assert _load(engine, FIRST, 3, site="y", a=4.0) == 1
    assert rows(engine, "select site, unit, a from readings order by a") == [
        ("x", "C", 1.0),
        ("x", "F", 2.0),
        ("y", "C", 4.0),
    ]


def test_a_process_that_already_has_the_new_spec_waits_for_the_migration(engine: sa.Engine) -> None:
    migrate(engine, [FIRST])
    with pytest.raises(PermanentError, match="42703"):
        _load(engine, readings(measures="a: {}, b: {}"), 0, site="x", a=1.0, b=1.0)
    assert rows(engine, "select count(*) from readings") == [(0,)]


@pytest.mark.parametrize(
    ("after", "lost"),
    [
        (readings("site: {}"), "readings_series.unit holds data"),
        (readings("site: {}, unit: {}", "a: {}"), "readings_events.b holds data"),
        (readings("site: {}, b: {}", "a: {}, unit: {}"), "readings_events.b holds data"),
        (readings("site: {}, kind: {}", "a: {}, b: {}"), "readings_series.unit holds data"),
    ],
)
def test_a_change_that_would_lose_data_is_refused_and_nothing_is_changed(
    engine: sa.Engine, after: StreamSpec, lost: str
) -> None:
    before = readings("site: {}, unit: {}", "a: {}, b: {}")
    migrate(engine, [before])
    _load(engine, before, 0, site="x", unit="C", a=1.0, b=2.0)
    picture = _picture(engine)
    new = parse_spec("name: another\ndimensions: [d]\nmeasures: [m]\n", "another.yaml")
    with pytest.raises(DestructiveChangeError, match=f"nothing was changed: .*{lost}"):
        migrate(engine, [new, after], sleep=_never)
    assert _picture(engine) == picture
    assert _load(engine, before, 1, site="x", unit="C", a=1.0, b=2.0) == 1


def test_a_changed_description_or_policy_only_changes_the_register_and_comments(engine: sa.Engine) -> None:
    migrate(engine, [readings("site: {description: Where.}")])
    after = readings("site: {}", "a: {description: How much.}", "policies: {retention_days: 7}")
    with engine.connect() as connection:
        plan = plan_changes(connection, after)
    assert (plan.changes, plan.notes) == ((), ("readings: description or policies changed",))
    columns = _picture(engine)[0]
    said: list[str] = []
    migrate(engine, [after], say=said.append)
    assert said == ["readings: description or policies changed"]
    assert _picture(engine)[0] == columns
    assert rows(engine, "select spec -> 'policies' ->> 'retention_days' from streams") == [("7",)]
    comments = "select col_description('readings_series'::regclass, 2), col_description('readings'::regclass, 4)"
    assert rows(engine, comments) == [(None, "How much.")]
    migrate(engine, [after], say=_silent)


def test_a_changed_default_is_said_and_leaves_what_is_stored(engine: sa.Engine) -> None:
    migrate(engine, [readings("site: {}, unit: {default: C}")])
    _load(engine, readings("site: {}, unit: {default: C}"), 0, site="x", a=1.0)
    after = readings("site: {}, unit: {default: F}")
    said: list[str] = []
    migrate(engine, [after], say=said.append)
    assert said == ["readings: the default of unit changes from 'C' to 'F'; what is stored stays as it is"]
    _load(engine, after, 1, site="x", a=2.0)
    assert rows(engine, "select unit, a from readings order by a") == [("C", 1.0), ("F", 2.0)]
    execute(engine, "insert into readings_series (site) values ('y')")
    assert rows(engine, "select unit from readings_series where site = 'y'") == [("F",)]
    migrate(engine, [after], say=_silent)


def test_event_ids_may_become_unique_and_cease_to_be(engine: sa.Engine) -> None:
    unique = readings(more="unique_event_id: true\npolicies: {unique_for: 1h}")
    migrate(engine, [FIRST])
    _load(engine, FIRST, 0, site="x", a=1.0, event_id="one")
    with pytest.raises(PermanentError, match="42P01"):
        _load(engine, unique, 1, site="x", a=1.0, event_id="one")
    execute(engine, "delete from assets where state = 'planned'")
    said: list[str] = []
    migrate(engine, [unique], say=said.append)
    assert said == ["readings: create readings_event_ids; events that are loaded already have left no ids there"]
    migrate(engine, [unique], say=_silent)
    assert [_load(engine, unique, number, site="x", a=1.0, event_id="one") for number in (2, 3)] == [1, 0]
    said.clear()
    migrate(engine, [FIRST], say=said.append)
    assert said == [
        "readings: event ids are not unique any more; readings_event_ids stays, and empties as its ids expire"
    ]
    migrate(engine, [FIRST], say=_silent)
    assert _load(engine, FIRST, 4, site="x", a=1.0, event_id="one") == 1
    migrate(engine, [unique])
    assert _load(engine, unique, 5, site="x", a=1.0, event_id="one") == 0
    _load(engine, FIRST, 2 * 3_600_000, site="x", a=1.0)
    assert purge_expired_ids(engine, FIRST.model_copy(update={"policies": unique.policies})) == 1


def test_a_new_stream_with_unique_ids_has_its_table_with_comments_and_grants(engine: sa.Engine) -> None:
    migrate(engine, [readings(more="unique_event_id: true")])
    assert rows(engine, "select col_description('readings_event_ids'::regclass, 1)") == [("The id.",)]
    for role, rights in (("pipeline_loader", (True, True)), ("pipeline_reader", (True, False))):
        granted = ", ".join(
            f"has_table_privilege('{role}', 'readings_event_ids', '{right}')" for right in ("select", "delete")
        )
        assert rows(engine, f"select {granted}") == [rights]


def test_somebodys_own_view_on_top_survives_an_added_field(engine: sa.Engine) -> None:
    migrate(engine, [FIRST])
    execute(engine, "create view daily as select site, sum(a_sum) as a from readings_1m group by 1")
    execute(engine, "create view everything as select * from readings")
    wider = readings("site: {}, unit: {default: C}", "a: {}, b: {}")
    migrate(engine, [wider])
    _load(engine, wider, 0, site="x", a=1.0, b=2.0)
    assert rows(engine, "select * from daily") == [("x", 1.0)]
    assert len(_columns(engine, "everything")) == 5
    assert {"unit", "b"} <= set(_columns(engine, "readings"))


def test_a_view_of_somebodys_own_with_the_streams_name_is_not_overwritten(engine: sa.Engine) -> None:
    migrate(engine, [])
    execute(engine, "create view readings as select 1 as mine")
    with pytest.raises(PermanentError, match='"readings" already exists'):
        migrate(engine, [FIRST])
    assert rows(engine, "select mine from readings") == [(1,)]
    assert rows(engine, "select to_regclass('readings_series')") == [(None,)]


def test_a_reader_that_holds_a_table_makes_the_change_wait_not_fail_halfway(engine: sa.Engine) -> None:
    migrate(engine, [FIRST])
    wider = readings("site: {}, unit: {}", "a: {}, b: {}")
    with engine.connect() as reader:
        reader.execute(sa.text("select * from readings_minutes"))
        with pytest.raises(TransientError, match="55P03"):
            migrate(engine, [wider], sleep=lambda _: None, lock_timeout=0.05)
    assert _columns(engine, "readings_series") == ["series_id", "site"]
    migrate(engine, [wider])
    assert _load(engine, wider, 0, site="x", unit="C", a=1.0, b=1.0) == 1


def _load(engine: sa.Engine, spec: StreamSpec, number: int, **fields: Any) -> int:
    return load_entries(engine, spec, entry(number, orjson.dumps({"ts": NOW_MS} | fields))).loaded


def _columns(engine: sa.Engine, name: str) -> list[str]:
    return [str(column["name"]) for column in sa.inspect(engine).get_columns(name)]


def _picture(engine: sa.Engine) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    columns = rows(
        engine,
        "select table_name, column_name, ordinal_position from information_schema.columns "
        "where table_schema = 'public' order by 1, 3",
    )
    return columns, rows(engine, "select * from streams order by 1")


def _silent(line: str) -> None:
    raise AssertionError(line)


def _never(_: float) -> None:
    raise AssertionError("nothing was to be waited for")
