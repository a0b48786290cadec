"""Pages about an organisation: settings, people, audit, API keys, the x-webio-token; and the doors to them."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views import View
from django.views.decorators.cache import never_cache

from core.clock import now
from core.errors import Conflict, Forbidden, Invalid, Refusal
from organisations import people
from organisations.actions import (
    create_api_key,
    create_webio_token,
    revoke_api_key,
    rotate_api_key,
    update_organisation,
)
from organisations.audit import record_audit
from organisations.models import ApiKey, AuditEntry, Invitation, Membership, Organisation, Role, User, WebioToken
from organisations.panel.forms import (
    ApiKeyForm,
    InviteForm,
    JoinForm,
    OrganisationForm,
    RotateForm,
    TokenForm,
    show_refusal,
)
from organisations.panel.views import PanelView
from organisations.roles import PERMISSIONS, Permission

AUDIT_PAGE = 50


def organisations_of(user: User) -> list[Organisation]:
    """Organisations a person may open: their own and everything below them, by name."""
    found = dict(Organisation.objects.filter(memberships__user=user, memberships__archived_at=None).in_bulk().items())
    newest = set(found)
    while newest:
        children = Organisation.objects.filter(parent__in=newest).exclude(pk__in=found).in_bulk()
        found.update(children)
        newest = set(children)
    return sorted(found.values(), key=lambda one: one.name.lower())


class Home(View):
    """Where a person's work begins: their organisation, a choice of several, or how to get in."""

    def get(self, request: HttpRequest) -> HttpResponse:
        if not isinstance(request.user, User):
            return render(request, "organisations/landing.html")
        organisations = organisations_of(request.user)
        if len(organisations) == 1 and "choose" not in request.GET:
            return redirect("integrations:overview", organisations[0].slug)
        return render(request, "organisations/organisation_list.html", {"organisations": organisations})


@method_decorator(login_required, name="dispatch")
class Account(View):
    """What a person can change about themselves."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return render(request, "organisations/account.html")


class OrganisationSettings(PanelView):
    permission = Permission.ORGANISATION_VIEW

    def get(self, request: HttpRequest, slug: str) -> HttpResponse:
        organisation = self.organisation
        form = OrganisationForm(initial={"name": organisation.name, "time_zone": organisation.time_zone})
        return self.show(form)

    def post(self, request: HttpRequest, slug: str) -> HttpResponse:
        if not self.may(Permission.ORGANISATION_MANAGE):
            return self.show(OrganisationForm(), status=403)
        form = OrganisationForm(request.POST)
        if form.is_valid():
            try:
                update_organisation(organisation=self.organisation, actor=self.actor, **form.cleaned_data)
            except Invalid as refusal:
                show_refusal(form, refusal, {"timeZone": "time_zone"})
            else:
                messages.success(request, _("Saved."))
                return redirect("settings:organisation", self.organisation.slug)
        return self.show(form, status=400)

    def show(self, form: OrganisationForm, status: int = 200) -> HttpResponse:
        may_manage = self.may(Permission.ORGANISATION_MANAGE)
        return self.page("organisations/organisation_form.html", form=form, may_manage=may_manage, status=status)


class People(PanelView):
    permission = Permission.MEMBERS_VIEW

    def get(self, request: HttpRequest, slug: str) -> HttpResponse:
        return self.show(InviteForm())

    def post(self, request: HttpRequest, slug: str) -> HttpResponse:
        if not self.may(Permission.MEMBERS_MANAGE):
            return self.show(InviteForm(), status=403)
        form = InviteForm(request.POST)
        if form.is_valid():
            try:
                people.invite(
                    organisation=self.organisation,
                    actor=self.actor,
                    actor_role=self.role,
                    email=form.cleaned_data["email"],
                    role=form.cleaned_data["role"],
                    invited_by=request.user if isinstance(request.user, User) else None,
                )
            except Invalid as refusal:
                show_refusal(form, refusal)
            except Forbidden as refusal:
                form.add_error("role", refusal.detail)
            except Conflict as refusal:
                # The offer stands; only its mail failed.
                messages.error(request, refusal.detail)
                return redirect("settings:people", self.organisation.slug)
            else:
                messages.success(request, _("Invitation sent to %(email)s.") % form.cleaned_data)
                return redirect("settings:people", self.organisation.slug)
        return self.show(form, status=400)

    def show(self, form: InviteForm, status: int = 200) -> HttpResponse:
        members = Membership.objects.filter(organisation=self.organisation, archived_at=None)
        invitations = Invitation.objects.filter(organisation=self.organisation, accepted_at=None, revoked_at=None)
        return self.page(
            "organisations/people.html",
            status=status,
            form=form,
            members=members.select_related("user").order_by("user__email"),
            invitations=invitations.order_by("email"),
            now=now(),
            roles=Role.choices,
            table=[(Role(role), sorted(permissions)) for role, permissions in PERMISSIONS.items()],
            may_manage=self.may(Permission.MEMBERS_MANAGE),
        )


class MemberChange(PanelView):
    """Change a member's role, or end the membership."""

    permission = Permission.MEMBERS_MANAGE

    def post(self, request: HttpRequest, slug: str, pk: int) -> HttpResponse:
        rows = Membership.objects.filter(organisation=self.organisation, archived_at=None)
        membership = get_object_or_404(rows, pk=pk)
        who: dict[str, Any] = {"membership": membership, "actor": self.actor, "actor_role": self.role}
        try:
            if "remove" in request.POST:
                people.remove_member(**who)
                messages.success(request, _("The membership has ended."))
            else:
                people.change_role(**who, role=request.POST.get("role", ""))
                messages.success(request, _("The role is changed."))
        except Refusal as refusal:
            messages.error(request, refusal.detail)
        return redirect("settings:people", self.organisation.slug)


class InvitationChange(PanelView):
    """Send an invitation again, or take it back."""

    permission = Permission.MEMBERS_MANAGE

    def post(self, request: HttpRequest, slug: str, pk: int) -> HttpResponse:
        rows = Invitation.objects.filter(organisation=self.organisation).select_related("organisation")
        invitation = get_object_or_404(rows, pk=pk)
        what: dict[str, Any] = {"invitation": invitation, "actor": self.actor, "actor_role": self.role}
        try:
            if "revoke" in request.POST:
                people.revoke_invitation(**what)
                messages.success(request, _("The invitation is revoked."))
            else:
                people.resend_invitation(**what, invited_by=request.user if isinstance(request.user, User) else None)
                messages.success(request, _("A new invitation was sent."))
        except Refusal as refusal:
            messages.error(request, refusal.detail)
        return redirect("settings:people", self.organisation.slug)


class AuditLog(PanelView):
    permission = Permission.AUDIT_VIEW

    def get(self, request: HttpRequest, slug: str) -> HttpResponse:
        rows = AuditEntry.objects.filter(organisation=self.organisation).order_by("-id")
        before = request.GET.get("before", "")
        if before.isascii() and before.isdigit() and len(before) < 19:
            rows = rows.filter(pk__lt=int(before))
        entries = list(rows[: AUDIT_PAGE + 1])
        older = entries[AUDIT_PAGE - 1].pk if len(entries) > AUDIT_PAGE else None
        return self.page("organisations/audit_list.html", entries=entries[:AUDIT_PAGE], older=older, before=before)


class ApiKeys(PanelView):
    permission = Permission.KEYS_VIEW

    def get(self, request: HttpRequest, slug: str) -> HttpResponse:
        keys = self.organisation.api_keys.select_related("created_by", "replaced_by").order_by("-created_at", "-id")
        return self.page(
            "organisations/apikey_list.html",
            keys=[(key, key.usable_at(now())) for key in keys],
            may_manage=self.may(Permission.KEYS_MANAGE),
        )


class SecretPage(PanelView):
    """A page that shows a secret once: it is in this answer and nowhere else."""

    def reveal(self, template: str, **context: Any) -> HttpResponse:
        response = self.page(template, **context)
        response["Cache-Control"] = "no-store"
        return response


class ApiKeyCreate(SecretPage):
    permission = Permission.KEYS_MANAGE

    def get(self, request: HttpRequest, slug: str) -> HttpResponse:
        return self.page("organisations/apikey_form.html", form=ApiKeyForm())

    def post(self, request: HttpRequest, slug: str) -> HttpResponse:
        form = ApiKeyForm(request.POST)
        if form.is_valid():
            expires = form.cleaned_data["expires_at"]
            try:
                row, key = create_api_key(
                    organisation=self.organisation,
                    actor=self.actor,
                    name=form.cleaned_data["name"],
                    scopes=form.cleaned_data["scopes"],
                    expires_at=expires.astimezone(UTC) if expires else None,
                    created_by=request.user if isinstance(request.user, User) else None,
                )
            except Invalid as refusal:
                show_refusal(form, refusal, {"expiresAt": "expires_at"})
            else:
                return self.reveal("organisations/apikey_created.html", row=row, key=key)
        return self.page("organisations/apikey_form.html", form=form, status=400)


class OneApiKey(SecretPage):
    """Base of the pages of one key."""

    permission = Permission.KEYS_MANAGE

    def row(self, pk: int) -> ApiKey:
        return get_object_or_404(self.organisation.api_keys.all(), pk=pk)


class ApiKeyRotate(OneApiKey):
    def get(self, request: HttpRequest, slug: str, pk: int) -> HttpResponse:
        return self.page("organisations/apikey_rotate.html", row=self.row(pk), form=RotateForm())

    def post(self, request: HttpRequest, slug: str, pk: int) -> HttpResponse:
        row = self.row(pk)
        form = RotateForm(request.POST)
        if form.is_valid():
            overlap = timedelta(hours=int(form.cleaned_data["overlap"]))
            try:
                made, key = rotate_api_key(api_key=row, actor=self.actor, overlap=overlap)
            except Refusal as refusal:
                form.add_error(None, refusal.detail)
            else:
                return self.reveal("organisations/apikey_created.html", row=made, key=key)
        return self.page("organisations/apikey_rotate.html", row=row, form=form, status=400)


class ApiKeyRevoke(OneApiKey):
    def get(self, request: HttpRequest, slug: str, pk: int) -> HttpResponse:
        return self.page("organisations/apikey_revoke.html", row=self.row(pk))

    def post(self, request: HttpRequest, slug: str, pk: int) -> HttpResponse:
        row = revoke_api_key(api_key=self.row(pk), actor=self.actor)
        messages.success(request, _("%(name)s is revoked.") % {"name": row.name})
        return redirect("keys:list", self.organisation.slug)


class Token(SecretPage):
    permission = Permission.TOKEN_MANAGE

    def get(self, request: HttpRequest, slug: str) -> HttpResponse:
        return self.show(TokenForm())

    def post(self, request: HttpRequest, slug: str) -> HttpResponse:
        form = TokenForm(request.POST)
        if form.is_valid():
            try:
                _row, token = create_webio_token(
                    organisation=self.organisation,
                    actor=self.actor,
                    secret_key=form.cleaned_data["secret_key"],
                    created_by=request.user if isinstance(request.user, User) else None,
                )
            except Invalid as refusal:
                show_refusal(form, refusal, {"secretKey": "secret_key"})
            else:
                return self.show(TokenForm(), token=token)
        return self.show(form, status=400)

    def show(self, form: TokenForm, token: str = "", status: int = 200) -> HttpResponse:
        newest = WebioToken.objects.filter(organisation=self.organisation).order_by("-id").first()
        may_reveal = self.may(Permission.TOKEN_REVEAL)
        context = {"form": form, "newest": newest, "token": token, "may_reveal": may_reveal, "status": status}
        return self.reveal("organisations/token.html", **context)


class TokenReveal(SecretPage):
    """The token once more, for owners, on demand."""

    permission = Permission.TOKEN_REVEAL

    def post(self, request: HttpRequest, slug: str) -> HttpResponse:
        newest = WebioToken.objects.filter(organisation=self.organisation).order_by("-id").first()
        if newest is None:
            raise Http404
        record_audit(self.actor, "token.reveal", newest)
        return self.reveal(
            "organisations/token.html", form=TokenForm(), newest=newest, token=newest.token, may_reveal=True
        )


@method_decorator(never_cache, name="dispatch")
class Join(View):
    """Where an invitation's link leads: join with the account one has, or make one."""

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        return self.show(request, token, JoinForm())

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        form = JoinForm(request.POST)
        try:
            if isinstance(request.user, User):
                people.accept_invitation(token=token, user=request.user)
            elif form.is_valid():
                user = people.register_invited(token=token, **form.cleaned_data)
                login(request, user, backend="allauth.account.auth_backends.AuthenticationBackend")
            else:
                return self.show(request, token, form, status=400)
        except Refusal as refusal:
            form.errors.clear()
            return self.show(request, token, form, problem=refusal.detail, status=refusal.status)
        messages.success(request, _("Welcome!"))
        return redirect("home")

    def show(
        self, request: HttpRequest, token: str, form: JoinForm, problem: str = "", status: int = 200
    ) -> HttpResponse:
        invitation = people.find_invitation(token)
        if invitation is None:
            return render(request, "organisations/invitation_gone.html", status=404)
        known = User.objects.filter(email__iexact=invitation.email).exists()
        context = {"invitation": invitation, "form": form, "problem": problem, "known": known, "token": token}
        return render(request, "organisations/invitation_accept.html", context, status=status)
