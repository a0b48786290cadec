"""The place of an event in the order of dispatching, and that it has none yet, get tables of their own."""

from typing import Any

import django.db.models.deletion
from django.db import migrations, models


def move_positions(apps: Any, schema_editor: Any) -> None:
    """Events with a position, and those without."""
    event, position, undispatched = _tables(apps)
    schema_editor.execute(
        f"INSERT INTO {position} (event_id, organisation_id, position) "
        f"SELECT id, organisation_id, position FROM {event} WHERE position IS NOT NULL"
    )
    schema_editor.execute(
        f"INSERT INTO {undispatched} (event_id, organisation_id) "
        f"SELECT id, organisation_id FROM {event} WHERE position IS NULL"
    )


def move_back(apps: Any, schema_editor: Any) -> None:
    """Write positions into the events again."""
    event, position, _undispatched = _tables(apps)
    schema_editor.execute(
        f"UPDATE {event} SET position = place.position FROM {position} AS place WHERE place.event_id = {event}.id"
    )


def _tables(apps: Any) -> list[str]:
    names = ("Event", "Position", "Undispatched")
    return [apps.get_model("conversations", name)._meta.db_table for name in names]


def _of_event(related_name: str) -> models.OneToOneField:
    return models.OneToOneField(
        db_constraint=False,
        on_delete=django.db.models.deletion.CASCADE,
        primary_key=True,
        related_name=related_name,
        serialize=False,
        to="conversations.event",
    )


def _of_organisation() -> models.ForeignKey:
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        on_delete=django.db.models.deletion.PROTECT,
        related_name="+",
        to="organisations.organisation",
    )


class Migration(migrations.Migration):
    dependencies = [
        ("conversations", "0002_fewer_event_indexes"),
        ("organisations", "0001_initial"),
    ]

    operations = [
        # Its name goes to the table of positions.
        migrations.RemoveConstraint(model_name="event", name="event_by_position"),
        migrations.RemoveIndex(model_name="event", name="event_undispatched"),
        migrations.CreateModel(
            name="Position",
            fields=[
                ("event", _of_event("place")),
                ("position", models.BigIntegerField(verbose_name="position")),
                ("organisation", _of_organisation()),
            ],
            options={
                "verbose_name": "position",
                "verbose_name_plural": "positions",
                "constraints": [
                    models.UniqueConstraint(fields=("organisation", "position"), name="event_by_position")
                ],
            },
        ),
        migrations.CreateModel(
            name="Undispatched",
            fields=[
                ("event", _of_event("undispatched")),
                ("organisation", _of_organisation()),
            ],
            options={
                "verbose_name": "undispatched event",
                "verbose_name_plural": "undispatched events",
            },
        ),
        migrations.RunPython(move_positions, move_back),
        migrations.RemoveField(model_name="event", name="position"),
    ]
