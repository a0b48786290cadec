"""Conversations and messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.response import Response

from conversations import actions
from conversations.api import examples
from conversations.api.serializers import (
    Assign,
    ConversationShape,
    MessageShape,
    MoveToQueue,
    SendMessage,
    SetStatus,
    StartConversation,
    StartedShape,
)
from conversations.models import Conversation, Message
from conversations.wire import conversation_shape, message_shape
from core.errors import Invalid
from core.text import clean_address
from organisations.api.docs import documented, listed
from organisations.api.fields import Nothing
from organisations.api.paging import page
from organisations.api.views import ApiView, find_or_404

READ = "conversations:read"
WRITE = "conversations:write"
TAG = "Conversations"


def moment_parameter(request: Request, name: str) -> datetime | None:
    """A query parameter that is an ISO 8601 time with a zone. Raises `Invalid`."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        # A plus sign in a query means a space; people forget to escape it.
        found = parse_datetime(text.replace(" ", "+"))
        if found is not None and found.tzinfo is not None:
            # In the years 1 and 9999 a zone can lead out of the calendar.
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Invalid.field(name, _("Must be an ISO 8601 time with a zone, such as 2026-01-31T09:00:00Z."))


class ConversationsView(ApiView):
    """The organisation's conversations."""

    scopes = {"GET": READ, "POST": WRITE}
    parameters = ("state", "queueId", "statusId", "customerUID", "address", "updatedSince")
    paged = True

    @documented(
        "List conversations, newest first",
        scope=READ,
        answer=listed(ConversationShape),
        tag=TAG,
        paged=True,
        parameters={
            "state": "open, closed or error",
            "queueId": "in this queue",
            "statusId": "with this status",
            "customerUID": "of this customer",
            "address": "with the contact of this address",
            "updatedSince": "changed at or after this ISO 8601 time",
        },
        example={"next": None, "previous": None, "results": [examples.CONVERSATION]},
        operation_id="listConversations",
    )
    def get(self, request: Request) -> Response:
        return Response(page(self.rows(request), request, conversation_shape))

    def rows(self, request: Request) -> QuerySet[Conversation]:
        """The conversations that the parameters ask for."""
        rows: QuerySet[Conversation] = Conversation.objects.filter(organisation=self.organisation).with_names()
        state = request.query_params.get("state")
        if state is not None:
            if state not in Conversation.State.values:
                raise Invalid.field("state", _("Must be open, closed or error."))
            rows = rows.filter(state=state)
        for name, column in (("queueId", "queue_id"), ("statusId", "status_id")):
            pk = self.id_parameter(name)
            if pk is not None:
                rows = rows.filter(**{column: pk})
        customer = request.query_params.get("customerUID")
        if customer is not None:
            rows = rows.filter(customer_uid=customer)
        address = request.query_params.get("address")
        if address is not None:
            rows = rows.filter(contact__address=clean_address("address", address))
        since = moment_parameter(request, "updatedSince")
        if since is not None:
            rows = rows.filter(updated_at__gte=since)
        return rows

    @documented(
        "Start a conversation",
        scope=WRITE,
        answer=StartedShape,
        status=201,
        body=StartConversation,
        tag=TAG,
        post=True,
        description="With `body` the first message is sent at once. While a conversation of the same channel and "
        "contact is open the answer is 409 `conversation_open` with its `conversationId`.",
        example={**examples.CONVERSATION, "communicationActionId": "220860", "statusCode": "1"},
        request_example=examples.START,
        operation_id="startConversation",
    )
    def post(self, request: Request) -> Response:
        values = self.read(StartConversation)
        conversation, message = actions.start_conversation(
            organisation=self.organisation,
            actor=self.actor,
            channel_id=values["channelId"],
            address=values["outboundChannelAddress"],
            customer_uid=values.get("customerUID"),
            body=values.get("body"),
            queue_id=values.get("queueId"),
            status_id=values.get("statusId"),
            fields=values.get("fields"),
        )
        answer = conversation_shape(conversation)
        if message is not None:
            answer["communicationActionId"] = str(message.pk)
            answer["statusCode"] = message.wire_status_code
        return Response(answer, status=201)


class OneConversation(ApiView):
    """Base of the views that do something to one conversation."""

    conversation_id: int

    def find(self, **kwargs: Any) -> None:
        # Only whether it is there: the verbs read it under their lock.
        rows = Conversation.objects.filter(organisation=self.organisation).only("pk")
        self.conversation_id = find_or_404(rows, kwargs["conversation_id"], "conversation").pk

    def where(self) -> dict[str, Any]:
        """What every verb on it takes."""
        return {"organisation": self.organisation, "actor": self.actor, "conversation_id": self.conversation_id}


class WholeConversation(ApiView):
    """Base of the views that show one conversation."""

    conversation: Conversation

    def find(self, **kwargs: Any) -> None:
        rows = Conversation.objects.filter(organisation=self.organisation).with_names()
        self.conversation = find_or_404(rows, kwargs["conversation_id"], "conversation")


class ConversationView(WholeConversation):
    """One conversation."""

    scopes = {"GET": READ}

    @documented(
        "Read a conversation",
        scope=READ,
        answer=ConversationShape,
        tag=TAG,
        problems=[404],
        example=examples.CONVERSATION,
        operation_id="readConversation",
    )
    def get(self, request: Request, conversation_id: str) -> Response:
        return Response(conversation_shape(self.conversation))


class MessagesView(OneConversation):
    """The messages of a conversation."""

    scopes = {"GET": "messages:read", "POST": "messages:write"}
    paged = True

    @documented(
        "List a conversation's messages, oldest first",
        scope="messages:read",
        answer=listed(MessageShape),
        tag="Messages",
        paged=True,
        problems=[404],
        example={"next": None, "previous": None, "results": [examples.MESSAGE]},
        operation_id="listMessages",
    )
    def get(self, request: Request, conversation_id: str) -> Response:
        rows = Message.objects.filter(organisation=self.organisation, conversation=self.conversation_id)
        return Response(page(rows, request, message_shape, newest_first=False))

    @documented(
        "Send a message",
        scope="messages:write",
        answer=MessageShape,
        status=201,
        body=SendMessage,
        tag="Messages",
        post=True,
        problems=[404],
        example=examples.MESSAGE,
        request_example={"body": "Your bill is ready."},
        operation_id="sendMessage",
    )
    def post(self, request: Request, conversation_id: str) -> Response:
        values = self.read(SendMessage)
        message = actions.send_message(**self.where(), body=values["body"])
        return Response(message_shape(message), status=201)


def verb(name: str, path: str, body: Any, summary: str, request_example: Any) -> type[OneConversation]:
    """A view that does one thing to a conversation and answers how it is then."""

    class VerbView(OneConversation):
        scopes = {"POST": WRITE}

        @documented(
            summary,
            scope=WRITE,
            answer=ConversationShape,
            body=body,
            tag=TAG,
            post=True,
            problems=[404],
            example=examples.CONVERSATION,
            request_example=request_example,
            operation_id=name,
        )
        def post(self, request: Request, conversation_id: str) -> Response:
            return Response(conversation_shape(VERBS[path](self, self.read(body))))

    VerbView.__name__ = f"{name[0].upper()}{name[1:]}View"
    VerbView.__doc__ = summary
    return VerbView


def _assign(view: OneConversation, values: dict[str, Any]) -> Conversation:
    if values["userId"] is None:
        return actions.unassign_conversation(**view.where())
    return actions.assign_conversation(**view.where(), user_id=values["userId"])


VERBS: dict[str, Any] = {
    "status": lambda view, values: actions.set_status(**view.where(), status_id=values["statusId"]),
    "queue": lambda view, values: actions.move_to_queue(**view.where(), queue_id=values["queueId"]),
    "assignment": _assign,
    "close": lambda view, values: actions.close_conversation(**view.where()),
    "reopen": lambda view, values: actions.reopen_conversation(**view.where()),
}

StatusView = verb("setStatus", "status", SetStatus, "Set a conversation's status", {"statusId": "12"})
QueueView = verb("moveToQueue", "queue", MoveToQueue, "Move a conversation to a queue", {"queueId": "7"})
AssignmentView = verb("assign", "assignment", Assign, "Assign or unassign a conversation", {"userId": "31"})
CloseView = verb("closeConversation", "close", Nothing, "Close a conversation", {})
ReopenView = verb("reopenConversation", "reopen", Nothing, "Reopen a conversation", {})
