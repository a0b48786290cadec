"""Further deliveries of events that were delivered, or tried, before: for resends and replays."""

from __future__ import annotations

import secrets
from typing import Any

from django.db import connections, models, router, transaction

from core.clock import now
from webhooks import outstanding
from webhooks.models import Delivery

#: A random number above 0 for each row.
_RANDOM = {
    "postgresql": "(random() * 4611686018427387904)::bigint + 1",
    "sqlite": "(random() & 4611686018427387903) + 1",
}


def copy_one(delivery: Delivery, kind: Delivery.Kind) -> Delivery:
    """Make a copy of a delivery, due now. Returns it."""
    values = {field.attname: getattr(delivery, field.attname) for field in _copied()} | _fresh(kind)
    copy = Delivery(**values | {"copy": secrets.randbits(62) + 1})
    with transaction.atomic():
        copy.save(force_insert=True)
        outstanding.of(copy, copy.created_at).save(force_insert=True)
    return copy


def _copied() -> list[models.Field[Any, Any]]:
    """The columns of a delivery that are written."""
    return [field for field in Delivery._meta.concrete_fields if not field.primary_key and not field.generated]


def _fresh(kind: Delivery.Kind) -> dict[str, Any]:
    """What a copy does not share with the delivery it repeats, but for `copy`."""
    moment = now()
    return {
        "kind": kind.value,
        "state": Delivery.State.PENDING.value,
        "attempt_count": 0,
        "last_status_code": None,
        "last_error": "",
        "created_at": moment,
        "finished_at": None,
    }


def copy_all(deliveries: models.QuerySet[Delivery], kind: Delivery.Kind) -> int:
    """Make a copy of each, due now, in the order of their events, in the caller's transaction. Returns how many.

    By INSERT … SELECT, since there may be hundreds of thousands.
    """
    connection = connections[router.db_for_write(Delivery)]
    quote = connection.ops.quote_name
    own = _fresh(kind)
    columns = []
    chosen = []
    values = []
    for field in _copied():
        column = quote(str(field.column))
        columns.append(column)
        if field.attname == "copy":
            chosen.append(_RANDOM[connection.vendor])
        elif field.attname in own:
            chosen.append("%s")
            values.append(field.get_db_prep_save(own[field.attname], connection))
        else:
            chosen.append(f"source.{column}")
    inner, params = deliveries.order_by().values("pk").query.get_compiler(connection=connection).as_sql()
    table = quote(Delivery._meta.db_table)
    return outstanding.insert(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(chosen)} FROM {table} AS source "
        f"WHERE source.{quote('id')} IN ({inner}) ORDER BY source.{quote('event_id')}",
        [*values, *params],
    )
