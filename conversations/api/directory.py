"""Channels, queues, statuses and contacts: what conversations need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conversations import actions
from conversations.api import examples
from conversations.api import serializers as bodies
from conversations.models import Channel, Contact, Queue, Status
from core.text import clean_address
from organisations.api.docs import documented, listed
from organisations.api.fields import Body
from organisations.api.paging import page
from organisations.api.views import ApiView, empty, find_or_404


def channel_shape(row: Channel) -> dict[str, Any]:
    """A channel on the wire."""
    return {
        "id": str(row.pk),
        "type": row.kind,
        "label": row.label,
        "address": row.address,
        "inboundRule": row.inbound_rule,
        "validityHours": row.validity_hours,
    }


def queue_shape(row: Queue) -> dict[str, Any]:
    """A queue on the wire."""
    return {"id": str(row.pk), "name": row.name, "active": row.active}


def status_shape(row: Status) -> dict[str, Any]:
    """A status on the wire."""
    return {"id": str(row.pk), "name": row.name}


def contact_shape(row: Contact) -> dict[str, Any]:
    """A contact on the wire."""
    return {"id": str(row.pk), "address": row.address, "customerUID": row.customer_uid, "name": row.name}


@dataclass(frozen=True)
class Kind:
    """One kind of thing: how it is found, shown, made, changed and taken out of use.

    `names` maps wire names to the verbs' arguments where they differ.
    """

    name: str
    plural: str
    model: type[Model]
    shape: Callable[[Any], dict[str, Any]]
    documented_shape: type[serializers.Serializer[Any]]
    create_body: type[Body]
    update_body: type[Body]
    create: Callable[..., Any]
    update: Callable[..., Any]
    archive: Callable[..., None] | None
    example: dict[str, Any]
    names: dict[str, str]
    parameters: dict[str, str]

    def rows(self, organisation: Any) -> QuerySet[Any]:
        """The organisation's own, without those out of use."""
        rows = self.model._default_manager.filter(organisation=organisation)
        return rows.filter(archived_at=None) if self.archive is not None else rows

    def arguments(self, values: dict[str, Any]) -> dict[str, Any]:
        """A body's values by the verbs' names."""
        return {self.names.get(name, name): value for name, value in values.items()}


KINDS = (
    Kind(
        "channel",
        "channels",
        Channel,
        channel_shape,
        bodies.ChannelShape,
        bodies.CreateChannel,
        bodies.UpdateChannel,
        actions.create_channel,
        actions.update_channel,
        actions.archive_channel,
        examples.CHANNEL,
        {"type": "kind", "inboundRule": "inbound_rule", "validityHours": "validity_hours"},
        {},
    ),
    Kind(
        "queue",
        "queues",
        Queue,
        queue_shape,
        bodies.QueueShape,
        bodies.CreateQueue,
        bodies.UpdateQueue,
        actions.create_queue,
        actions.update_queue,
        actions.archive_queue,
        examples.QUEUE,
        {},
        {},
    ),
    Kind(
        "status",
        "statuses",
        Status,
        status_shape,
        bodies.StatusShape,
        bodies.WriteStatus,
        bodies.WriteStatus,
        actions.create_status,
        actions.update_status,
        actions.archive_status,
        examples.STATUS,
        {},
        {},
    ),
    Kind(
        "contact",
        "contacts",
        Contact,
        contact_shape,
        bodies.ContactShape,
        bodies.CreateContact,
        bodies.UpdateContact,
        actions.create_contact,
        actions.update_contact,
        None,
        examples.CONTACT,
        {"customerUID": "customer_uid"},
        {"address": "with this address", "customerUID": "of this customer"},
    ),
)


def list_view(kind: Kind) -> type[ApiView]:
    """The view of all things of a kind."""
    title = kind.plural.title()

    class KindListView(ApiView):
        scopes = {"GET": f"{kind.plural}:read", "POST": f"{kind.plural}:write"}
        parameters = tuple(kind.parameters)
        paged = True

        @documented(
            f"List {kind.plural}",
            scope=f"{kind.plural}:read",
            answer=listed(kind.documented_shape),
            tag=title,
            paged=True,
            parameters=kind.parameters,
            example={"next": None, "previous": None, "results": [kind.example]},
            operation_id=f"list{title}",
        )
        def get(self, request: Request) -> Response:
            rows = kind.rows(self.organisation)
            if kind.parameters:
                address = request.query_params.get("address")
                if address is not None:
                    rows = rows.filter(address=clean_address("address", address))
                customer = request.query_params.get("customerUID")
                if customer is not None:
                    rows = rows.filter(customer_uid=customer)
            return Response(page(rows, request, kind.shape, newest_first=False))

        @documented(
            f"Add a {kind.name}",
            scope=f"{kind.plural}:write",
            answer=kind.documented_shape,
            status=201,
            body=kind.create_body,
            tag=title,
            post=True,
            example=kind.example,
            request_example={key: value for key, value in kind.example.items() if key != "id"},
            operation_id=f"create{kind.name.title()}",
        )
        def post(self, request: Request) -> Response:
            values = kind.arguments(self.read(kind.create_body))
            row = kind.create(organisation=self.organisation, actor=self.actor, **values)
            return Response(kind.shape(row), status=201)

    KindListView.__name__ = f"{title}View"
    KindListView.__doc__ = f"The organisation's {kind.plural}."
    return KindListView


def detail_view(kind: Kind) -> type[ApiView]:
    """The view of one thing of a kind."""
    title = kind.plural.title()

    class KindView(ApiView):
        scopes = {"GET": f"{kind.plural}:read", "PATCH": f"{kind.plural}:write"} | (
            {"DELETE": f"{kind.plural}:write"} if kind.archive is not None else {}
        )
        row: Any

        def find(self, **kwargs: Any) -> None:
            self.row = find_or_404(kind.rows(self.organisation), kwargs["pk"], kind.name)
            self.row.organisation = self.organisation

        @documented(
            f"Read a {kind.name}",
            scope=f"{kind.plural}:read",
            answer=kind.documented_shape,
            tag=title,
            problems=[404],
            example=kind.example,
            operation_id=f"read{kind.name.title()}",
        )
        def get(self, request: Request, pk: str) -> Response:
            return Response(kind.shape(self.row))

        @documented(
            f"Change a {kind.name}",
            scope=f"{kind.plural}:write",
            answer=kind.documented_shape,
            body=kind.update_body,
            tag=title,
            problems=[404],
            example=kind.example,
            operation_id=f"update{kind.name.title()}",
        )
        def patch(self, request: Request, pk: str) -> Response:
            values = kind.arguments(self.read(kind.update_body, partial=True))
            if values:
                self.row = kind.update(**{kind.name: self.row}, actor=self.actor, **values)
            return Response(kind.shape(self.row))

        if kind.archive is not None:

            @documented(
                f"Take a {kind.name} out of use",
                scope=f"{kind.plural}:write",
                status=204,
                tag=title,
                problems=[404, 409],
                operation_id=f"delete{kind.name.title()}",
            )
            def delete(self, request: Request, pk: str) -> Response:
                assert kind.archive is not None
                kind.archive(**{kind.name: self.row}, actor=self.actor)
                return empty()

    KindView.__name__ = f"{kind.name.title()}View"
    KindView.__doc__ = f"One {kind.name}."
    return KindView
