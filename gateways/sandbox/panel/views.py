"""The sandbox in the panel: play both parts of a conversation and see what the webhooks were sent of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Any, ClassVar

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversations.actions import close_conversation, reopen_conversation, send_message, start_conversation
from conversations.events import EVENT_TYPES, FAILED, REOPENED, STARTED
from conversations.models import Channel, Conversation, ConversationQuerySet, Event, Message
from conversations.outcomes import OUTCOMES
from core.clock import now
from core.errors import Conflict, Invalid
from gateways.sandbox.actions import play_inbound
from gateways.sandbox.carrier import ENDINGS, KIND
from gateways.sandbox.panel.forms import MessageForm, StartForm, free_address
from organisations.roles import Permission
from webhooks.models import Delivery, Webhook
from webhooks.panel.forms import add_refusal
from webhooks.panel.views.base import IntegrationView

#: Conversations on the first page, and messages and events on a conversation's: the newest ones.
RECENT = 20
SHOWN = 100
#: How long after its last event a conversation's page looks for news by itself.
SETTLING = timedelta(minutes=1)
#: What the catalogue, which holds what is delivered, has no name for.
HISTORY = {
    STARTED: gettext_lazy("Conversation started"),
    REOPENED: gettext_lazy("Conversation reopened"),
    FAILED: gettext_lazy("Conversation failed"),
}


class SandboxView(IntegrationView):
    """A page of the sandbox. Conversations on channels of other types do not exist here."""

    def address(self, name: str, *args: Any) -> str:
        """The address of a page of the sandbox."""
        return reverse(f"sandbox:{name}", args=[self.organisation.slug, *args])

    def conversations(self) -> ConversationQuerySet:
        """The organisation's sandbox conversations, with what lists show."""
        return Conversation.objects.filter(organisation=self.organisation, channel__kind=KIND).with_names()

    def told(self, refusal: Conflict) -> str:
        """What a verb said, with a link to the conversation that is in the way."""
        other = refusal.extra.get("conversationId")
        if other is None:
            return refusal.detail
        link = self.address("conversation", other)
        return format_html('{} <a href="{}">{}</a>', refusal.detail, link, _("Go to it"))

    def page(self, template: str, *, status: int = 200, **context: Any) -> HttpResponse:
        webhooks = Webhook.objects.filter(organisation=self.organisation, archived_at=None)
        context = {
            "may_play": self.may(Permission.SANDBOX_PLAY),
            "has_webhook": webhooks.exists(),
            **context,
        }
        return super().page(template, status=status, **context)


class Index(SandboxView):
    """Start a conversation; the newest ones below. An address in the query is suggested in the form."""

    permission = Permission.CONVERSATIONS_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        suggested = {
            "outbound_channel_address": request.GET.get("address") or free_address(self.organisation),
            "body": _("Hello from %(name)s") % {"name": self.organisation.name},
        }
        return self.index_page(StartForm(initial=suggested, channels=self.channels()))

    def channels(self) -> list[Channel]:
        """The sandbox channels in use."""
        return list(Channel.objects.filter(organisation=self.organisation, kind=KIND, archived_at=None))

    def index_page(self, form: StartForm, status: int = 200) -> HttpResponse:
        return self.page(
            "sandbox/index.html",
            form=form,
            endings=[(ending, f"44770090{ending}", outcome) for ending, outcome in ENDINGS.items()],
            conversations=list(self.conversations().order_by("-updated_at", "-pk")[:RECENT]),
            recent=RECENT,
            status=status,
        )


class Start(Index):
    """Start a conversation."""

    permission = Permission.SANDBOX_PLAY
    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = StartForm(request.POST, channels=self.channels())
        if form.is_valid():
            try:
                conversation, _message = start_conversation(
                    organisation=self.organisation, actor=self.actor, **form.verb_arguments()
                )
            except Invalid as refusal:
                add_refusal(form, refusal)
            except Conflict as refusal:
                form.add_error("outbound_channel_address", self.told(refusal))
            else:
                return redirect(self.address("conversation", conversation.pk))
        return self.index_page(form, status=400)


class ConversationPage(SandboxView):
    """One conversation: what was said, what it recorded, and both sides' turn to speak."""

    permission = Permission.CONVERSATIONS_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.conversation_page()

    def conversation(self) -> Conversation:
        """The conversation of the address, as it is now. Raises `Http404`."""
        return get_object_or_404(self.conversations(), pk=self.kwargs["conversation_id"])

    def conversation_page(self, status: int = 200, **forms: MessageForm) -> HttpResponse:
        """The page; `forms` are those of its two that were refused, by name."""
        conversation = self.conversation()
        talk = list(conversation.messages.order_by("-pk")[:SHOWN])[::-1]
        events = self.events(conversation)
        return self.page(
            "sandbox/conversation.html",
            conversation=conversation,
            talk=[(message, OUTCOMES.get(message.status_code or 0)) for message in talk],
            events=[(event, EVENT_TYPES.get(event.type), HISTORY.get(event.type)) for event in events],
            shown=SHOWN,
            waiting=on_its_way(conversation, talk, events),
            status=status,
            **{"send": MessageForm(prefix="send"), "answer": MessageForm(prefix="answer"), **forms},
        )

    def events(self, conversation: Conversation) -> list[Event]:
        """What the conversation recorded, newest first; with the deliveries when the person may see those."""
        rows = Event.objects.filter(organisation=self.organisation, conversation=conversation).order_by("-seq")
        rows = rows.select_related("undispatched")
        if self.may(Permission.DELIVERIES_VIEW):
            deliveries = Delivery.objects.filter(organisation=self.organisation).select_related("webhook")
            rows = rows.prefetch_related(Prefetch("deliveries", deliveries.order_by("pk"), to_attr="sent"))
        return list(rows[:SHOWN])


def on_its_way(conversation: Conversation, talk: list[Message], events: list[Event]) -> bool:
    """Whether the carrier or a webhook is about to say more."""
    if now() - conversation.last_event_at > SETTLING:
        return False
    unreported = any(message.state in (Message.State.PENDING, Message.State.SENT) for message in talk)
    deliveries = [delivery for event in events for delivery in getattr(event, "sent", [])]
    return (
        unreported
        or any(hasattr(event, "undispatched") for event in events)
        or any(delivery.state == Delivery.State.PENDING for delivery in deliveries)
    )


class Speak(ConversationPage, ABC):
    """One side says something. Subclasses say which form it is, and call the verb."""

    permission = Permission.SANDBOX_PLAY
    http_method_names = ["post", "options"]
    form_name: ClassVar[str]

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        conversation = self.conversation()
        form = MessageForm(request.POST, prefix=self.form_name)
        if form.is_valid():
            try:
                message = self.say(conversation, form.cleaned_data["body"])
            except Invalid as refusal:
                add_refusal(form, refusal)
            except Conflict as refusal:
                form.add_error("body", self.told(refusal))
            else:
                if message.conversation_id != conversation.pk:
                    messages.info(request, _("The other conversation is not open: the message went to this one."))
                return redirect(self.address("conversation", message.conversation_id))
        return self.conversation_page(400, **{self.form_name: form})

    @abstractmethod
    def say(self, conversation: Conversation, body: str) -> Message:
        """Call the verb."""


class Send(Speak):
    """The organisation sends a message."""

    form_name = "send"

    def say(self, conversation: Conversation, body: str) -> Message:
        return send_message(
            organisation=self.organisation, actor=self.actor, conversation_id=conversation.pk, body=body
        )


class Answer(Speak):
    """The contact writes; when the conversation takes no more, that starts another one."""

    form_name = "answer"

    def say(self, conversation: Conversation, body: str) -> Message:
        return play_inbound(
            organisation=self.organisation,
            channel_id=conversation.channel_id,
            address=conversation.contact.address,
            body=body,
        )


class Switch(ConversationPage):
    """Close or reopen, by the last part of the address."""

    permission = Permission.SANDBOX_PLAY
    http_method_names = ["post", "options"]
    VERBS = {
        "close": (close_conversation, gettext_lazy("Closed.")),
        "reopen": (reopen_conversation, gettext_lazy("Open again.")),
    }

    def post(self, request: HttpRequest, verb: str, **kwargs: Any) -> HttpResponse:
        conversation = self.conversation()
        call, done = self.VERBS[verb]
        try:
            call(organisation=self.organisation, actor=self.actor, conversation_id=conversation.pk)
        except Conflict as refusal:
            messages.error(request, self.told(refusal))
        else:
            messages.success(request, done)
        return redirect(self.address("conversation", conversation.pk))
