"""What was fanned out beside a change of the webhook's state is settled by the sweep."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django_q.models import Schedule

from conftest import Cast
from core.clock import now
from webhooks import tasks
from webhooks.models import Webhook
from webhooks.stranded import settle_stranded
from webhooks.tests.conftest import make_delivery


@pytest.mark.parametrize(
    ("webhook_state", "deleted", "suspended", "before", "after"),
    [
        ("active", False, False, "held", "pending"),
        ("active", False, False, "pending", "pending"),
        ("active", False, False, "failed", "failed"),
        ("active", False, True, "held", "held"),
        ("paused", False, False, "held", "held"),
        ("disabled", False, False, "held", "held"),
        ("active", True, False, "pending", "cancelled"),
        ("paused", True, False, "held", "cancelled"),
        ("active", True, False, "delivered", "delivered"),
    ],
)
def test_each_delivery_ends_in_the_state_its_webhook_gives_it(
    acme: Cast, webhook: Webhook, webhook_state: str, deleted: bool, suspended: bool, before: str, after: str
) -> None:
    delivery = make_delivery(acme, webhook, state=before)
    Webhook.objects.update(state=webhook_state, archived_at=now() if deleted else None)
    if suspended:
        type(acme.organisation).objects.update(suspended_at=now())
    assert settle_stranded() == (before != after)
    delivery.refresh_from_db()
    assert delivery.state == after
    assert (delivery.next_attempt_at is not None) == (after == "pending")
    assert settle_stranded() == 0


def test_the_sweep_is_scheduled_once_and_settles(acme: Cast, webhook: Webhook) -> None:
    for _ in range(2):
        tasks.install_schedules(sender=apps.get_app_config("django_q"), using="default")
    assert Schedule.objects.get(func="webhooks.tasks.sweep").minutes == 1
    make_delivery(acme, webhook, state="held")
    assert tasks.sweep()["settled"] == 1


def test_settling_costs_three_statements(acme: Cast, webhook: Webhook, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(3):
        settle_stranded()
