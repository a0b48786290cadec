"""Cursor paging by key: stable under inserts, one index scan per page, no count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.core import signing
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from core.errors import Invalid

DEFAULT_LIMIT = 50
MAXIMUM_LIMIT = 200


def limit_of(parameters: Any) -> int:
    """The `limit` parameter: 1 to 200, 50 by default. Raises `Invalid`."""
    text = parameters.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAXIMUM_LIMIT or len(text) > 9:
        raise Invalid.field("limit", _("Must be from 1 to %(maximum)d.") % {"maximum": MAXIMUM_LIMIT})
    return int(text)


def page(
    rows: QuerySet[Any],
    request: Any,
    render: Callable[[Any], dict[str, Any]],
    *,
    newest_first: bool = True,
) -> dict[str, Any]:
    """`{"next", "previous", "results"}` of `rows` by primary key. `next` and `previous` are paths or None.

    A cursor is signed for the organisation and the address: somebody else's is refused. Raises `Invalid`.
    """
    limit = limit_of(request.query_params)
    signer = signing.Signer(salt=f"cursor:{request.organisation.pk}:{request.path}")
    text = request.query_params.get("cursor")
    forward, edge = True, None
    if text is not None:
        try:
            direction, number = signer.unsign(text).split(".")
            forward, edge = direction == "n", int(number)
        except (signing.BadSignature, ValueError):
            raise Invalid.field("cursor", _("Is not a cursor of this list.")) from None
    # Going back reads the other way round, and is turned again afterwards.
    descending = newest_first == forward
    if edge is not None:
        rows = rows.filter(**{"pk__lt" if descending else "pk__gt": edge})
    found = list(rows.order_by("-pk" if descending else "pk")[: limit + 1])
    more = len(found) > limit
    found = found[:limit]
    if not forward:
        found.reverse()
    has_next = more if forward else True
    has_previous = (edge is not None) if forward else more
    return {
        "next": _link(request, signer, "n", found[-1].pk) if found and has_next else None,
        "previous": _link(request, signer, "p", found[0].pk) if found and has_previous else None,
        "results": [render(row) for row in found],
    }


def _link(request: Any, signer: signing.Signer, direction: str, pk: int) -> str:
    parameters = {key: value for key, value in request.query_params.items() if key != "cursor"}
    parameters["cursor"] = signer.sign(f"{direction}.{pk}")
    return f"{request.path}?{urlencode(parameters)}"
