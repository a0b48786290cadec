"""Staff's pages on tenants, people, keys and the audit trail."""

from __future__ import annotations

from functools import partial
from typing import Any

from allauth.account.decorators import secure_admin_login
from allauth.mfa.admin import AuthenticatorAdmin as BaseAuthenticatorAdmin
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from core.admin import LargeTableMixin, ReadOnlyMixin
from organisations import actions, people
from organisations.models import (
    ApiKey,
    AuditEntry,
    IdempotencyKey,
    Invitation,
    Membership,
    Organisation,
    RateWindow,
    Role,
    User,
    WebioToken,
)
from organisations.staff import HistoryAdmin, HistoryInline, OrganisationFilter, StaffAdmin

# One door in: the throttle and the second factor of the panel's sign-in hold for staff too.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
admin.site.site_header = _("Webio staff")
admin.site.site_title = _("Webio staff")
admin.site.index_title = _("Platform")


class MembershipInline(HistoryInline):
    model = Membership
    fields = ("user", "role", "created_at", "archived_at")
    readonly_fields = ("created_at",)


class ApiKeyInline(HistoryInline):
    model = ApiKey
    fields = ("name", "prefix", "last_used_at", "expires_at", "revoked_at")
    readonly_fields = ("prefix", "last_used_at")


@admin.register(Organisation)
class OrganisationAdmin(StaffAdmin):
    """Tenants. Suspension is an action: the verb also holds back what would be sent."""

    list_display = ("name", "slug", "parent", "suspended", "created_at")
    list_select_related = ("parent",)
    list_filter = (("suspended_at", admin.EmptyFieldListFilter),)
    search_fields = ("name", "slug")
    autocomplete_fields = ("parent",)
    prepopulated_fields = {"slug": ("name",)}
    readonly_fields = ("suspended_at", "created_at")
    fixed_fields = ()
    inlines = (MembershipInline, ApiKeyInline)
    actions = ("suspend", "unsuspend")

    @admin.display(boolean=True, description=_("suspended"))
    def suspended(self, organisation: Organisation) -> bool:
        return organisation.suspended

    @admin.action(description=_("Suspend selected organisations"), permissions=["change"])
    def suspend(self, request: HttpRequest, queryset: QuerySet[Organisation]) -> None:
        self.run(request, queryset, lambda row, actor: actions.suspend_organisation(organisation=row, actor=actor))

    @admin.action(description=_("End suspension of selected organisations"), permissions=["change"])
    def unsuspend(self, request: HttpRequest, queryset: QuerySet[Organisation]) -> None:
        self.run(request, queryset, lambda row, actor: actions.unsuspend_organisation(organisation=row, actor=actor))


@admin.register(User)
class UserAdmin(StaffAdmin, BaseUserAdmin):
    """People, members and staff alike. Only superusers give rights: a right to change users is no way to get them."""

    list_display = ("email", "name", "is_active", "is_staff", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active")
    search_fields = ("email", "name")
    ordering = ("email",)
    readonly_fields = ("last_login", "date_joined")
    fixed_fields = ()
    fieldsets = (
        (None, {"fields": ("email", "name", "password")}),
        (_("Rights"), {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        (_("Dates"), {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "name", "usable_password", "password1", "password2")}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        fixed = super().get_readonly_fields(request, obj)
        if request.user.is_superuser:
            return fixed
        return (*fixed, "is_staff", "is_superuser", "groups", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed = super().has_change_permission(request, obj)
        # Whoever sets a stronger person's password or address becomes that person.
        if obj is not None and (obj.is_superuser or obj.is_staff) and not request.user.is_superuser:
            return allowed and obj.pk == request.user.pk
        return allowed


@admin.register(Membership)
class MembershipAdmin(StaffAdmin):
    """Who belongs where. Archived, a membership gives nothing."""

    list_display = ("user", "organisation", "role", "archived_at")
    list_select_related = ("user", "organisation")
    list_filter = ("role", ("organisation", OrganisationFilter))
    search_fields = ("user__email", "organisation__name")
    autocomplete_fields = ("organisation", "user")
    readonly_fields = ("created_at", "archived_at")
    fixed_fields = ("organisation", "user")
    change_verb = partial(people.change_role, actor_role=Role.OWNER)
    verb_object = "membership"
    actions = ("remove",)

    @admin.action(description=_("Remove selected members"), permissions=["change"])
    def remove(self, request: HttpRequest, queryset: QuerySet[Membership]) -> None:
        self.run(
            request,
            queryset.filter(archived_at=None),
            lambda row, actor: people.remove_member(membership=row, actor=actor, actor_role=Role.OWNER),
        )


@admin.register(Invitation)
class InvitationAdmin(HistoryAdmin):
    """Offers of membership. The link is in the mail only."""

    list_display = ("email", "organisation", "role", "created_at", "expires_at", "accepted_at", "revoked_at")
    list_select_related = ("organisation",)
    list_filter = (("organisation", OrganisationFilter),)
    search_fields = ("email",)
    exclude = ("token_hash",)


@admin.register(ApiKey)
class ApiKeyAdmin(HistoryAdmin):
    """Keys by their prefix: nobody can read a key again."""

    list_display = ("name", "prefix", "organisation", "last_used_at", "expires_at", "revoked_at")
    list_select_related = ("organisation",)
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), ("organisation", OrganisationFilter))
    search_fields = ("prefix", "name")
    exclude = ("key_hash",)
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Keys are not changed by forms; revoking one still asks for the right to change."""
        return request.user.has_perm("organisations.change_apikey")

    @admin.action(description=_("Revoke selected keys"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        rows = queryset.select_related("organisation")
        self.run(request, rows, lambda row, actor: actions.revoke_api_key(api_key=row, actor=actor))


@admin.register(WebioToken)
class WebioTokenAdmin(HistoryAdmin):
    """When a token was made, and by whom; not the token."""

    list_display = ("organisation", "key_prefix", "created_by", "created_at")
    list_select_related = ("organisation", "created_by")
    list_filter = (("organisation", OrganisationFilter),)
    search_fields = ("organisation__name",)
    exclude = ("token",)


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(LargeTableMixin, HistoryAdmin):
    """Calls that are not made twice; not their answers, which may hold secrets."""

    list_display = ("id", "organisation", "method", "path", "status_code", "created_at", "expires_at")
    list_select_related = ("organisation",)
    list_filter = (("organisation", OrganisationFilter),)
    exclude = ("answer", "body_hash")


@admin.register(RateWindow)
class RateWindowAdmin(ReadOnlyMixin, admin.ModelAdmin):
    """What is left of the present rate limits."""

    list_display = ("key", "used", "start")
    search_fields = ("key",)


@admin.register(AuditEntry)
class AuditEntryAdmin(LargeTableMixin, HistoryAdmin):
    """Who did what to settings, staff included."""

    list_display = ("id", "created_at", "organisation", "actor_kind", "actor_label", "action", "object_label")
    list_select_related = ("organisation",)
    list_filter = (("organisation", OrganisationFilter),)


@admin.register(LogEntry)
class LogEntryAdmin(LargeTableMixin, ReadOnlyMixin, admin.ModelAdmin):
    """What Django's admin wrote down by itself."""

    list_display = ("id", "action_time", "user", "content_type", "object_repr", "action_flag")
    list_select_related = ("user", "content_type")


admin.site.unregister(Authenticator)


@admin.register(Authenticator)
class AuthenticatorAdmin(ReadOnlyMixin, BaseAuthenticatorAdmin):
    """That somebody has a second factor; not its seed or recovery codes."""

    exclude = ("data",)
    list_select_related = ("user",)
