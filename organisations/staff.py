"""What the admin pages of all apps share: who acts, what is written down, how a refusal is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.filters import RelatedFieldListFilter
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import ngettext

from core.actors import Actor, acting_as
from core.admin import ReadOnlyMixin
from core.errors import Refusal
from organisations.audit import record_audit
from organisations.models import Organisation

M = TypeVar("M", bound=models.Model)

#: Rows offered by a list filter. The page of a row links to the lists of any.
OFFERED = 30


def staff_actor(request: HttpRequest) -> Actor:
    """The member of staff behind an admin request."""
    return Actor("staff", str(request.user.pk), str(request.user))


def told(refusal: Refusal) -> str:
    """A refusal in words for people."""
    return " ".join(m for sentences in getattr(refusal, "errors", {}).values() for m in sentences) or refusal.detail


class FewFilter(RelatedFieldListFilter):
    """Offers the first rows by name and the chosen one, however many there are."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        rows = self.rows(request).order_by("name").values_list("pk", "name")
        offered = list(rows[:OFFERED])
        known = {pk for pk, _name in offered}
        others = [pk for pk in self.chosen if pk not in known]
        return offered + (list(rows.filter(pk__in=others)) if others else [])

    @property
    def chosen(self) -> list[int]:
        """The numbers that the query asks for."""
        return numbers(self.lookup_val or [])

    def rows(self, request: HttpRequest) -> models.QuerySet[Any]:
        """The rows to offer."""
        raise NotImplementedError


def numbers(values: Iterable[Any]) -> list[int]:
    """Those of these texts that can be the number of a row."""
    return [int(text) for text in map(str, values) if text.isascii() and text.isdigit() and len(text) < 19]


class OrganisationFilter(FewFilter):
    """Offers the first organisations."""

    def rows(self, request: HttpRequest) -> models.QuerySet[Any]:
        return Organisation.objects.all()


class StaffAdmin(admin.ModelAdmin):
    """Base of the admin's pages on tenants' rows: every write has an actor and leaves an audit entry.

    Nothing is deleted here: rows are archived, revoked, or go by retention.
    """

    #: Verb that adds a row, and the fields of the form it takes; empty: the form's save adds it.
    add_verb: Callable[..., Any] | None = None
    #: Verb that changes a row, called with the row by the name `verb_object` and the changed fields.
    change_verb: Callable[..., Any] | None = None
    verb_object = ""
    #: Fields that only the add page has.
    fixed_fields: tuple[str, ...] = ("organisation",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        fixed = self.fixed_fields if obj is not None else ()
        return (*super().get_readonly_fields(request, obj), *fixed)  # type: ignore[misc]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            with acting_as(staff_actor(request)):
                return super().changeform_view(request, object_id, form_url, extra_context)
        except Refusal as refusal:
            # Raised inside the view's transaction: nothing was written.
            self.message_user(request, told(refusal), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        actor = staff_actor(request)
        data = form.cleaned_data
        if not change and self.add_verb is not None:
            made = type(self).add_verb(actor=actor, **data)  # type: ignore[misc]
            obj.__dict__.update(made.__dict__)
            return
        if change and self.change_verb is not None:
            changes = {name: data[name] for name in form.changed_data if name in data}
            if changes:
                row = type(obj)._default_manager.get(pk=obj.pk)
                type(self).change_verb(actor=actor, **{self.verb_object: row}, **changes)  # type: ignore[misc]
            return
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            name = obj._meta.model_name
            record_audit(
                actor,
                f"{name}.{'update' if change else 'create'}",
                obj,
                data={"fields": sorted(form.changed_data)},
            )

    def run(self, request: HttpRequest, rows: Iterable[M], verb: Callable[[M, Actor], Any], audit: str = "") -> None:
        """Do `verb` to each chosen row as the member of staff; say how many it was done to and who refused.

        `audit` names what is written to the audit trail, for verbs that do not write it themselves.
        """
        actor, done = staff_actor(request), 0
        for row in rows:
            try:
                with transaction.atomic(), acting_as(actor):
                    verb(row, actor)
                    if audit:
                        record_audit(actor, audit, row)
                    self.log_change(request, row, audit or getattr(verb, "__name__", ""))
            except Refusal as refusal:
                self.message_user(request, f"{row}: {told(refusal)}", messages.WARNING)
            else:
                done += 1
        sentence = ngettext("Done to %(count)d row.", "Done to %(count)d rows.", done) % {"count": done}
        self.message_user(request, sentence, messages.SUCCESS if done else messages.WARNING)


class HistoryAdmin(ReadOnlyMixin, StaffAdmin):
    """Pages of what happened: only looked at."""


class HistoryInline(ReadOnlyMixin, admin.TabularInline):
    """Rows of what happened, below what it happened to: the newest ones, each linked to its page.

    A slice cannot be filtered by the formset, so the newest keys are looked up first.
    """

    extra = 0
    can_delete = False
    show_change_link = True
    newest = 20

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        formset = super().get_formset(request, obj, **kwargs)
        newest, fk_name = self.newest, str(formset.fk.name)  # type: ignore[attr-defined]

        class Newest(formset):  # type: ignore[misc,valid-type]
            def __init__(self, *args: Any, queryset: Any, instance: Any = None, **options: Any) -> None:
                if instance is not None and instance.pk is not None:
                    rows = queryset.filter(**{fk_name: instance.pk}).order_by("-pk")
                    keys = list(rows.values_list("pk", flat=True)[:newest])
                    queryset = queryset.filter(pk__in=keys).order_by("-pk")
                super().__init__(*args, queryset=queryset, instance=instance, **options)

        return Newest
