"""The key of positions and of undispatched events becomes the row's own number on SQLite; PostgreSQL changes nothing."""

import django.db.models.deletion
from django.db import migrations

import core.fields


def _of_event(related_name: str) -> core.fields.RowOf:
    return core.fields.RowOf(
        db_constraint=False,
        on_delete=django.db.models.deletion.CASCADE,
        primary_key=True,
        related_name=related_name,
        serialize=False,
        to="conversations.event",
    )


class Migration(migrations.Migration):
    dependencies = [("conversations", "0003_positions")]

    operations = [
        migrations.AlterField(model_name="position", name="event", field=_of_event("place")),
        migrations.AlterField(model_name="undispatched", name="event", field=_of_event("undispatched")),
    ]
