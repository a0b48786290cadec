"""How a webhook fares: the figures behind the panel's charts."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.wire import moment
from core.errors import Invalid
from organisations.api.docs import documented
from webhooks.api.views import READ, TAG, OneWebhook
from webhooks.models import DURATION_BOUNDS
from webhooks.tallies import PERIODS, Figures, history, total

FIGURES = {"attempts": 1204, "delivered": 1190, "failed": 14, "successRate": 0.9884, "p50Ms": 41, "p95Ms": 178}
EXAMPLE = {
    "period": "24h",
    "total": FIGURES,
    "results": [{"since": "2026-01-31T09:00:00.000Z", "until": "2026-01-31T10:00:00.000Z", **FIGURES}],
}
LONGEST = DURATION_BOUNDS[-1]


class FiguresShape(serializers.Serializer[Any]):
    """What some attempts came to. Retries are attempts of their own; tests do not count."""

    attempts = serializers.IntegerField()
    delivered = serializers.IntegerField()
    failed = serializers.IntegerField()
    successRate = serializers.FloatField(allow_null=True, help_text="0 to 1; null without attempts.")
    p50Ms = serializers.IntegerField(allow_null=True, help_text=f"Estimated, at most {LONGEST}.")
    p95Ms = serializers.IntegerField(allow_null=True, help_text=f"Estimated, at most {LONGEST}.")


class SpanShape(FiguresShape):
    """The same of one span of time."""

    since = serializers.DateTimeField()
    until = serializers.DateTimeField()


class StatisticsShape(serializers.Serializer[Any]):
    """A period and its spans, oldest first."""

    period = serializers.ChoiceField(list(PERIODS))
    total = FiguresShape()
    results = SpanShape(many=True)


def figures_shape(figures: Figures) -> dict[str, Any]:
    """Figures on the wire."""
    return {
        "attempts": figures.attempts,
        "delivered": figures.delivered,
        "failed": figures.failed,
        "successRate": None if figures.rate is None else round(figures.rate, 4),
        "p50Ms": None if figures.p50 is None else round(min(figures.p50, LONGEST)),
        "p95Ms": None if figures.p95 is None else round(min(figures.p95, LONGEST)),
    }


class StatisticsView(OneWebhook):
    """Success rate, durations and volume of a webhook."""

    scopes = {"GET": READ}
    parameters = ("period",)

    @documented(
        "Read how a webhook fares",
        scope=READ,
        answer=StatisticsShape,
        tag=TAG,
        problems=[404],
        parameters={"period": "`24h` (the default) by the hour, `7d` by six hours, `30d` by the day"},
        description="Spans follow the hours and days of the organisation's time zone; the last one is not over yet.",
        example=EXAMPLE,
        operation_id="readWebhookStatistics",
    )
    def get(self, request: Request, pk: str) -> Response:
        key = request.query_params.get("period", "24h")
        if key not in PERIODS:
            raise Invalid.field("period", _("Must be one of: %(periods)s.") % {"periods": ", ".join(PERIODS)})
        buckets = history(self.webhook, PERIODS[key])
        return Response(
            {
                "period": key,
                "total": figures_shape(total(buckets)),
                "results": [
                    {"since": moment(one.start), "until": moment(one.end), **figures_shape(one.figures)}
                    for one in buckets
                ],
            }
        )
