"""PostgreSQL finds by the index of what is due what names a webhook, and nothing else."""


import core.indexes
from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('organisations', '0001_initial'),
        ('webhooks', '0008_row_numbers'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='outstanding',
            name='outstanding_due',
        ),
        migrations.AddIndex(
            model_name='outstanding',
            index=core.indexes.LedIndex(fields=['webhook', 'next_attempt_at', 'delivery'], name='outstanding_due'),
        ),
    ]
