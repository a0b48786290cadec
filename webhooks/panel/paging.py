"""Pages of a long list by key, newest first: no offsets, no counts, and nothing is shown twice while rows arrive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core import signing
from django.db.models import Q
from django.http import Http404

from organisations.models import Organisation

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page; `older` is the cursor of the next one, "" on the last."""

    rows: list[Any]
    older: str


def page_of(queryset: Any, organisation: Organisation, cursor: str, *, by_time: bool) -> Page:
    """The page of deliveries, or of other rows, behind `cursor`, "" for the newest.

    One webhook's log is read in the order of its ids, an organisation's in the order of time (`by_time`), each along
    its index. Cursors are signed for the organisation; raises `Http404` for a forged or foreign one.
    """
    salt = f"deliveries of {organisation.pk} {'by time' if by_time else 'by id'}"
    if cursor:
        try:
            pk, moment = signing.loads(cursor, salt=salt)
        except signing.BadSignature as error:
            raise Http404 from error
        if by_time:
            at = datetime.fromisoformat(moment)
            queryset = queryset.filter(Q(created_at__lt=at) | Q(created_at=at, pk__lt=pk), created_at__lte=at)
        else:
            queryset = queryset.filter(pk__lt=pk)
    rows = list(queryset.order_by(*(["-created_at", "-pk"] if by_time else ["-pk"]))[: PAGE_SIZE + 1])
    older = ""
    if len(rows) > PAGE_SIZE:
        rows = rows[:PAGE_SIZE]
        older = signing.dumps([rows[-1].pk, rows[-1].created_at.isoformat()], salt=salt)
    return Page(rows, older)
