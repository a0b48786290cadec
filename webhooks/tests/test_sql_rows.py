"""Rows given to a statement arrive as they are, whatever is in them, on both databases."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhooks.engine import sql

pytestmark = pytest.mark.django_db

COLUMNS = {"id": "bigint", "note": "text", "document": "jsonb", "flag": "boolean", "at": "timestamptz"}
TEXT = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def through_the_database(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows as a statement sees them."""
    texts = [(pk, note, json.dumps(document, ensure_ascii=False), flag, at) for pk, note, document, flag, at in rows]
    statement, parameters = sql.rows_of("given", COLUMNS, texts)
    found = sql.run(statement + "SELECT id, note, document, flag, at FROM given ORDER BY id", parameters)
    return [(pk, note, json.loads(document), bool(flag), at) for pk, note, document, flag, at in found]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXT, st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))))
def test_text_and_documents_come_through_unchanged(values: list[tuple[str | None, list[str]]]) -> None:
    rows = [(number, note, document, number % 2 == 0, None) for number, (note, document) in enumerate(values)]
    if rows:
        assert through_the_database(rows) == rows


@pytest.mark.parametrize(
    "note", ['a "quoted" word', "back\\slash", "{a,b}", "NULL", "", "line\nbreak", "\t", "💡", None]
)
def test_what_arrays_give_a_meaning_to_comes_through_unchanged(note: str | None) -> None:
    rows: list[tuple[Any, ...]] = [(1, note, [["x", note or ""]], True, None)]
    assert through_the_database(rows) == rows


def test_points_in_time_come_through_unchanged() -> None:
    at = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
    (row,) = through_the_database([(1, "", [], True, at)])
    assert row[4] == (at if isinstance(row[4], datetime) else sql.moment(at))


@pytest.mark.parametrize("distinct", [1, 63, 64, 65, 200])
def test_few_and_many_different_documents_and_times_come_through(distinct: int) -> None:
    began = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
    rows: list[tuple[Any, ...]] = []
    for number in range(250):
        value = number % distinct
        rows.append((number, "", {"number": value}, True, None if value == 1 else began + timedelta(seconds=value)))
    found = through_the_database(rows)
    assert [row[2] for row in found] == [row[2] for row in rows]
    assert [row[4] for row in found] == [
        at if at is None or isinstance(found[0][4], datetime) else sql.moment(at) for *_others, at in rows
    ]


def test_what_is_alike_is_given_once_and_what_is_not_comes_through_as_well() -> None:
    at = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
    alike = ("note", "flag", "at")
    for note, other in (("same", "same"), ("one", "another"), (None, None), ("one", None)):
        rows = [(1, note, "[]", True, at), (2, other, "[1]", True, at)]
        statement, parameters = sql.rows_of("given", COLUMNS, rows, alike)
        found = sql.run(statement + "SELECT id, note, document, flag FROM given ORDER BY id", parameters)
        assert [(pk, told, json.loads(document), bool(flag)) for pk, told, document, flag in found] == [
            (1, note, [], True),
            (2, other, [1], True),
        ]


def test_no_value_is_taken_for_another() -> None:
    """True, 1 and 1.0 are the same key of a dictionary; texts of documents are not."""
    rows: list[tuple[Any, ...]] = [(number, "", value, True, None) for number, value in enumerate([1, True, 1.0, "1"])]
    assert [repr(row[2]) for row in through_the_database(rows)] == [repr(row[2]) for row in rows]
