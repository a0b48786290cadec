"""What is still to be done about deliveries gets a table of its own, and the log's rows no index of what changes."""

from typing import Any

import django.db.models.deletion
from django.db import migrations, models


def move_unfinished(apps: Any, schema_editor: Any) -> None:
    """What is pending or held, as the engine will look for it."""
    delivery = apps.get_model("webhooks", "Delivery")._meta.db_table
    outstanding = apps.get_model("webhooks", "Outstanding")._meta.db_table
    schema_editor.execute(
        f"""
        INSERT INTO {outstanding} (
            delivery_id, organisation_id, webhook_id, event_id, lane, seq, format, format_version, next_attempt_at,
            attempt_count, blocks
        )
        SELECT id, organisation_id, webhook_id, event_id, CASE WHEN kind = 'event' THEN conversation_id END, seq,
               format, format_version, CASE WHEN state = 'pending' THEN next_attempt_at END, attempt_count, blocks
        FROM {delivery} WHERE state IN ('pending', 'held')
        """
    )


def move_back(apps: Any, schema_editor: Any) -> None:
    """Write it into the deliveries again."""
    delivery = apps.get_model("webhooks", "Delivery")._meta.db_table
    outstanding = apps.get_model("webhooks", "Outstanding")._meta.db_table
    schema_editor.execute(
        f"""
        UPDATE {delivery} SET next_attempt_at = outstanding.next_attempt_at, blocks = outstanding.blocks
        FROM {outstanding} AS outstanding WHERE outstanding.delivery_id = {delivery}.id
        """
    )


def leave_room(apps: Any, schema_editor: Any) -> None:
    """Leave half of each page for the outcomes of its rows: PostgreSQL then writes them in their place."""
    if schema_editor.connection.vendor == "postgresql":
        table = apps.get_model("webhooks", "Delivery")._meta.db_table
        schema_editor.execute(f"ALTER TABLE {table} SET (fillfactor = 50)")


def leave_none(apps: Any, schema_editor: Any) -> None:
    """Fill pages as PostgreSQL does by itself."""
    if schema_editor.connection.vendor == "postgresql":
        table = apps.get_model("webhooks", "Delivery")._meta.db_table
        schema_editor.execute(f"ALTER TABLE {table} RESET (fillfactor)")


class Migration(migrations.Migration):
    dependencies = [
        ("organisations", "0001_initial"),
        ("webhooks", "0006_requests_under_way"),
    ]

    operations = [
        migrations.CreateModel(
            name="Outstanding",
            fields=[
                (
                    "delivery",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="outstanding",
                        serialize=False,
                        to="webhooks.delivery",
                    ),
                ),
                ("event_id", models.BigIntegerField(editable=False)),
                ("lane", models.BigIntegerField(editable=False, null=True)),
                ("seq", models.PositiveBigIntegerField(default=0, editable=False)),
                ("format", models.CharField(editable=False, max_length=16)),
                ("format_version", models.PositiveSmallIntegerField(default=1, editable=False)),
                ("next_attempt_at", models.DateTimeField(blank=True, null=True, verbose_name="next attempt at")),
                ("attempt_count", models.PositiveIntegerField(default=0, verbose_name="attempts")),
                ("blocks", models.BooleanField(default=False, editable=False)),
                (
                    "organisation",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organisations.organisation",
                    ),
                ),
                (
                    "webhook",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="outstanding",
                        to="webhooks.webhook",
                    ),
                ),
            ],
            options={
                "verbose_name": "outstanding delivery",
                "verbose_name_plural": "outstanding deliveries",
                "indexes": [
                    models.Index(fields=["webhook", "next_attempt_at", "delivery"], name="outstanding_due"),
                    models.Index(
                        condition=models.Q(("blocks", True)),
                        fields=["webhook", "lane", "seq"],
                        name="outstanding_lane",
                    ),
                ],
            },
        ),
        migrations.RunPython(move_unfinished, move_back),
        migrations.RunPython(leave_room, leave_none),
        migrations.RemoveIndex(model_name="delivery", name="delivery_due"),
        migrations.RemoveIndex(model_name="delivery", name="delivery_lane"),
        migrations.RemoveIndex(model_name="delivery", name="delivery_log_by_state"),
        migrations.RemoveField(model_name="delivery", name="blocks"),
        migrations.RemoveField(model_name="delivery", name="next_attempt_at"),
        migrations.AlterField(
            model_name="delivery",
            name="webhook",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="deliveries",
                to="webhooks.webhook",
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="exception",
            field=models.GeneratedField(
                db_persist=True,
                expression=models.Case(
                    models.When(state__in=["failed", "held", "cancelled"], then=models.F("state")),
                    default=models.Value(None),
                ),
                output_field=models.CharField(max_length=10, null=True),
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("exception__isnull", False)),
                fields=["webhook", "exception", "-id"],
                name="delivery_exceptions",
            ),
        ),
    ]
