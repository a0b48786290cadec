"""The key of what is outstanding becomes the row's own number on SQLite; PostgreSQL changes nothing."""

import django.db.models.deletion
from django.db import migrations

import core.fields


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0007_outstanding")]

    operations = [
        migrations.AlterField(
            model_name="outstanding",
            name="delivery",
            field=core.fields.RowOf(
                db_constraint=False,
                on_delete=django.db.models.deletion.CASCADE,
                primary_key=True,
                related_name="outstanding",
                serialize=False,
                to="webhooks.delivery",
            ),
        ),
    ]
