"""Staff's pages on conversations. What makes events is changed by verbs, from actions; history is only looked at."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from conversations import actions
from conversations.models import Channel, Contact, Conversation, Event, Message, Note, Queue, Status
from core.admin import LargeTableMixin
from core.text import ADDRESS_SEPARATORS
from organisations.models import Organisation
from organisations.staff import HistoryAdmin, HistoryInline, OrganisationFilter, StaffAdmin


class DirectoryAdmin(StaffAdmin):
    """Channels, queues and statuses: few per organisation, added and changed by their verbs."""

    list_filter = (("organisation", OrganisationFilter), ("archived_at", admin.EmptyFieldListFilter))
    list_select_related = ("organisation",)
    autocomplete_fields = ("organisation",)
    readonly_fields = ("created_at", "archived_at")
    actions = ("archive",)

    @admin.action(description=_("Archive the selected rows"), permissions=["change"])
    def archive(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        verbs: dict[Any, Any] = {
            Channel: actions.archive_channel,
            Queue: actions.archive_queue,
            Status: actions.archive_status,
        }
        verb, noun = verbs[self.model], str(self.opts.model_name)
        self.run(request, queryset.select_related("organisation"), lambda row, actor: verb(actor=actor, **{noun: row}))


@admin.register(Channel)
class ChannelAdmin(DirectoryAdmin):
    list_display = ("label", "kind", "address", "organisation", "inbound_rule", "validity_hours", "archived_at")
    search_fields = ("label", "address")
    fields = ("organisation", "kind", "label", "address", "inbound_rule", "validity_hours", "created_at", "archived_at")
    add_verb = actions.create_channel
    change_verb = actions.update_channel
    verb_object = "channel"
    fixed_fields = ("organisation", "kind")


@admin.register(Queue)
class QueueAdmin(DirectoryAdmin):
    list_display = ("name", "organisation", "active", "archived_at")
    search_fields = ("name",)
    fields = ("organisation", "name", "active", "created_at", "archived_at")
    add_verb = actions.create_queue
    change_verb = actions.update_queue
    verb_object = "queue"


@admin.register(Status)
class StatusAdmin(DirectoryAdmin):
    list_display = ("name", "organisation", "archived_at")
    search_fields = ("name",)
    fields = ("organisation", "name", "created_at", "archived_at")
    add_verb = actions.create_status
    change_verb = actions.update_status
    verb_object = "status"


def contacts_of(address: str) -> QuerySet[Contact]:
    """Contacts of an address in any organisation, probed organisation by organisation in the unique index."""
    digits = ADDRESS_SEPARATORS.sub("", address).removeprefix("+")
    return Contact.objects.filter(organisation__in=Organisation.objects.values("pk"), address=digits)


@admin.register(Contact)
class ContactAdmin(LargeTableMixin, StaffAdmin):
    list_display = ("id", "address", "name", "customer_uid", "organisation", "created_at")
    list_select_related = ("organisation",)
    list_filter = (("organisation", OrganisationFilter),)
    search_help_text = _("Number or address")
    autocomplete_fields = ("organisation",)
    fields = ("organisation", "address", "customer_uid", "name", "created_at")
    readonly_fields = ("created_at",)
    add_verb = actions.create_contact
    change_verb = actions.update_contact
    verb_object = "contact"
    fixed_fields = ("organisation", "address")

    def found_by(self, term: str) -> QuerySet[Contact]:
        return contacts_of(term)


class MessageInline(HistoryInline):
    model = Message
    fields = ("created_at", "direction", "state", "status_code", "body")
    readonly_fields = ("created_at",)


class NoteInline(HistoryInline):
    model = Note
    fields = ("created_at", "actor_label", "body")
    readonly_fields = ("created_at",)


class EventInline(HistoryInline):
    model = Event
    fields = ("seq", "created_at", "type", "actor_kind", "actor_label")
    readonly_fields = ("created_at",)


@admin.register(Conversation)
class ConversationAdmin(LargeTableMixin, HistoryAdmin):
    """Conversations. State, queue, status and holder are changed by verbs: closing and reopening are actions."""

    list_display = ("id", "organisation", "contact", "channel", "state", "queue", "status", "assigned_to", "updated_at")
    list_select_related = ("organisation", "contact", "channel", "queue", "status", "assigned_to")
    list_filter = (("organisation", OrganisationFilter), "state")
    date_hierarchy = "created_at"
    search_help_text = _("Number of the conversation, or address or customer UID of the contact")
    inlines = (MessageInline, NoteInline, EventInline)
    actions = ("close", "reopen")

    def found_by(self, term: str) -> QuerySet[Conversation]:
        of_contact = Conversation.objects.filter(contact__in=list(contacts_of(term).values_list("pk", flat=True)[:500]))
        of_customer = Conversation.objects.filter(organisation__in=Organisation.objects.values("pk"), customer_uid=term)
        return Conversation.objects.filter(
            pk__in=[
                *of_contact.order_by("-pk").values_list("pk", flat=True)[:250],
                *of_customer.order_by("-pk").values_list("pk", flat=True)[:250],
            ]
        )

    def has_work_permission(self, request: HttpRequest) -> bool:
        """Conversations are not changed by forms; closing one still asks for the right to change."""
        return request.user.has_perm("conversations.change_conversation")

    @admin.action(description=_("Close selected conversations"), permissions=["work"])
    def close(self, request: HttpRequest, queryset: QuerySet[Conversation]) -> None:
        self.run(
            request,
            queryset.select_related("organisation"),
            lambda row, actor: actions.close_conversation(
                organisation=row.organisation, actor=actor, conversation_id=row.pk
            ),
            audit="conversation.close",
        )

    @admin.action(description=_("Reopen selected conversations"), permissions=["work"])
    def reopen(self, request: HttpRequest, queryset: QuerySet[Conversation]) -> None:
        self.run(
            request,
            queryset.select_related("organisation"),
            lambda row, actor: actions.reopen_conversation(
                organisation=row.organisation, actor=actor, conversation_id=row.pk
            ),
            audit="conversation.reopen",
        )

    @admin.display(description=_("payment"))
    def payment_link(self, conversation: Conversation | None) -> str:
        """Where a payment is recorded, if an app above has a page for it."""
        if conversation is None or conversation.pk is None:
            return "-"
        try:
            url = reverse("admin:payments_payment_add")
        except NoReverseMatch:
            return "-"
        return format_html('<a href="{}?conversation={}">{}</a>', url, conversation.pk, _("Record a payment"))

    readonly_fields = ("payment_link",)


@admin.register(Message)
class MessageAdmin(LargeTableMixin, HistoryAdmin):
    list_display = ("id", "organisation", "conversation", "direction", "state", "status_code", "created_at")
    list_select_related = ("organisation", "conversation")
    list_filter = (("organisation", OrganisationFilter),)
    date_hierarchy = "created_at"
    search_help_text = _("Number of the message")


@admin.register(Note)
class NoteAdmin(LargeTableMixin, HistoryAdmin):
    list_display = ("id", "organisation", "conversation", "actor_label", "created_at")
    list_select_related = ("organisation", "conversation")
    list_filter = (("organisation", OrganisationFilter),)


@admin.register(Event)
class EventAdmin(LargeTableMixin, HistoryAdmin):
    list_display = ("id", "organisation", "conversation_id", "seq", "type", "actor_kind", "actor_label", "created_at")
    list_select_related = ("organisation",)
    list_filter = (("organisation", OrganisationFilter),)
    date_hierarchy = "created_at"
    search_help_text = _("Number of the event or of its conversation")
    # The rows these name may be gone; the event stays.
    exclude = ("conversation", "contact")
    readonly_fields = ("conversation_id", "contact_id")

    def found_by(self, term: str) -> QuerySet[Event] | None:
        digits = term.removeprefix("#")
        if digits.isascii() and digits.isdigit() and len(digits) < 19:
            return Event.objects.filter(conversation=int(digits))
        return None
