"""Events by pull, at once or when the next one comes."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.core import signing
from django.db import DatabaseError, close_old_connections
from django.db.models import Max
from django.utils.translation import gettext as _
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.events import EVENT_TYPES
from conversations.models import Position
from core.clock import now
from core.errors import Invalid
from core.longpoll import WaitingResponse, end, parks
from organisations.api.docs import documented
from organisations.api.paging import limit_of
from organisations.api.views import ApiView
from organisations.models import ApiKey
from webhooks import waiting
from webhooks.api import examples
from webhooks.api.serializers import EventsShape
from webhooks.engine.dispatch import settle_positions
from webhooks.payloads import standard

log = logging.getLogger("webio.waiting")

#: In place of a cursor: the end.
LATEST = "latest"
#: The longest `wait`.
WAIT_MOST = 30
#: When to ask again if all places to wait are taken.
RETRY_SECONDS = 5


def wait_of(parameters: Any) -> int:
    """The `wait` parameter: 0 to 30 seconds, 0 by default. Raises `Invalid`."""
    text = parameters.get("wait", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > WAIT_MOST:
        raise Invalid.field("wait", _("Must be whole seconds from 0 to %(maximum)d.") % {"maximum": WAIT_MOST})
    return int(text)


class EventsView(ApiView):
    """The same events by pull, for receivers behind a firewall."""

    scopes = {"GET": "events:read"}
    parameters = ("after", "limit", "wait")

    @documented(
        "Pull events",
        scope="events:read",
        answer=EventsShape,
        tag="Events",
        description="With `wait`, an answer without events comes only when that time is over, or when there is no "
        "place to wait: then with `Retry-After`.",
        parameters={
            "after": "`next` of an earlier answer, or `latest` for what comes from now on; without it from the oldest "
            "event kept",
            "limit": "1 to 200, 50 by default",
            "wait": "0 to 30, 0 by default: for how many seconds to wait for an event when there is none",
        },
        example={"next": "MTI3:1vH3c", "more": False, "results": [examples.EVENT]},
        operation_id="pullEvents",
    )
    def get(self, request: Request) -> Response | WaitingResponse:
        limit = limit_of(request.query_params)
        seconds = min(wait_of(request.query_params), settings.EVENTS_WAIT_SECONDS)
        position = self._position(request.query_params.get("after"))
        found = self._pull(position, limit)
        if found["results"] or not seconds or request.method == "HEAD":
            return Response(found)
        places = waiting.PLACES if parks(request._request) else waiting.PLACES_WITH_THREADS
        waited = waiting.room.enter(self.organisation.pk, position, seconds, places)
        if waited is None:
            return Response(found, headers={"Retry-After": str(RETRY_SECONDS)})
        # Once more: from here on nothing is missed.
        found = self._pull(position, limit)
        if found["results"]:
            end(waited)
            return Response(found)
        # Nobody keeps a connection to the database while waiting.
        close_old_connections()
        return WaitingResponse(
            waited, seconds, lambda: self._later(position, limit), content_type=JSONRenderer.media_type
        )

    @property
    def _signer(self) -> signing.Signer:
        return signing.Signer(salt=f"events:{self.organisation.pk}")

    def _position(self, cursor: str | None) -> int:
        if cursor is None:
            return 0
        if cursor == LATEST:
            places = Position.objects.filter(organisation=self.organisation)
            last = places.aggregate(last=Max("position"))["last"] or 0
            settle_positions()
            return last
        try:
            return int(self._signer.unsign(cursor))
        except (signing.BadSignature, ValueError):
            raise Invalid.field("after", _("Is not a cursor of this organisation's events.")) from None

    def _pull(self, position: int, limit: int) -> dict[str, Any]:
        # By position, which the engine gives: ids commit out of order, and a late one would be skipped.
        places = Position.objects.filter(
            organisation=self.organisation, position__gt=position, event__type__in=EVENT_TYPES
        )
        found = list(places.select_related("event").order_by("position")[: limit + 1])
        given = found[:limit]
        if given:
            settle_positions()
            position = given[-1].position
        return self._page(position, [standard(place.event) for place in given], len(found) > limit)

    def _page(self, position: int, results: list[dict[str, Any]], more: bool = False) -> dict[str, Any]:
        return {"next": self._signer.sign(str(position)), "more": more, "results": results}

    def _later(self, position: int, limit: int) -> bytes:
        """The body after the wait. The status is settled, so that whoever may not read any longer gets nothing new."""
        found = self._page(position, [])
        try:
            key = ApiKey.objects.select_related("organisation").filter(pk=self.key.pk).first()
            if key is not None and key.usable_at(now()) and not key.organisation.suspended:
                found = self._pull(position, limit)
        except DatabaseError:
            log.exception("events that were waited for could not be read")
        body: bytes = JSONRenderer().render(found)
        return body
