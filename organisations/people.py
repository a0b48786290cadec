"""The verbs on people: invite, join, change role, leave. Each is atomic and refuses with `core.errors`."""

from __future__ import annotations

import hashlib
import logging
import secrets
from datetime import timedelta

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.db import transaction
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import gettext as _

from core.actors import Actor
from core.clock import now
from core.errors import Conflict, Forbidden, Invalid, NotFound
from organisations.audit import record_audit
from organisations.models import Invitation, Membership, Organisation, Role, User
from organisations.roles import Permission, may

logger = logging.getLogger(__name__)

#: How long an invitation can be accepted.
VALID = timedelta(days=7)


def hash_token(token: str) -> str:
    """What is stored of an invitation's secret: its SHA-256 in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def find_invitation(token: str) -> Invitation | None:
    """The invitation that a mailed link belongs to, if it can still be accepted."""
    row = Invitation.objects.select_related("organisation").filter(token_hash=hash_token(token)).first()
    usable = row is not None and row.accepted_at is None and row.revoked_at is None and row.expires_at > now()
    return row if usable else None


def invite(
    *, organisation: Organisation, actor: Actor, actor_role: str, email: str, role: str, invited_by: User | None = None
) -> Invitation:
    """Offer a membership by e-mail. An open offer to the same address is replaced.

    Raises `Invalid` for the address, the role or somebody who is a member; `Forbidden` when the actor's role may not
    give it.
    """
    email = email.strip().lower()
    try:
        validate_email(email)
    except Exception:
        raise Invalid.field("email", _("Must be an e-mail address.")) from None
    _check_role(role)
    _check_may_give(actor_role, role)
    members = Membership.objects.filter(organisation=organisation, archived_at=None)
    if members.filter(user__email__iexact=email).exists():
        raise Invalid.field("email", _("Is a member already."), code="already_member")
    token = secrets.token_urlsafe(32)
    with transaction.atomic():
        Organisation.objects.select_for_update(no_key=True).get(pk=organisation.pk)
        open_ones = Invitation.objects.filter(
            organisation=organisation, email__iexact=email, accepted_at=None, revoked_at=None
        )
        open_ones.update(revoked_at=now())
        row = Invitation.objects.create(
            organisation=organisation,
            email=email,
            role=role,
            token_hash=hash_token(token),
            invited_by=invited_by,
            created_at=now(),
            expires_at=now() + VALID,
        )
        record_audit(actor, "invitation.create", row, data={"role": role})
        transaction.on_commit(lambda: _mail(row, token, actor))
    return row


def resend_invitation(
    *, invitation: Invitation, actor: Actor, actor_role: str, invited_by: User | None = None
) -> Invitation:
    """Replace an open or expired offer by a new one, with a new link. Refuses as `revoke_invitation` and `invite`."""
    with transaction.atomic():
        Organisation.objects.select_for_update(no_key=True).get(pk=invitation.organisation_id)
        # Under the lock: an offer that somebody else took back meanwhile does not come back by a stale page.
        if not Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None).exists():
            raise _closed()
        return invite(
            organisation=invitation.organisation,
            actor=actor,
            actor_role=actor_role,
            email=invitation.email,
            role=invitation.role,
            invited_by=invited_by,
        )


def _closed() -> Conflict:
    return Conflict("invitation_closed", _("The invitation was accepted or revoked already."))


def _mail(invitation: Invitation, token: str, actor: Actor) -> None:
    """After the commit: a mail about an offer that rolled back would be a lie. Raises `Conflict` `mail_not_sent`."""
    link = settings.PUBLIC_URL.rstrip("/") + reverse("invitation", args=[token])
    context = {"invitation": invitation, "link": link, "by": actor.label, "days": VALID.days}
    try:
        send_mail(
            _("Join %(name)s on Webio") % {"name": invitation.organisation.name},
            render_to_string("organisations/invitation_mail.txt", context),
            None,
            [invitation.email],
        )
    except OSError as error:  # Every failure of smtplib and of the network is one.
        logger.exception("An invitation could not be mailed.")
        sentence = _("The invitation is kept, but the mail could not be sent. Try to send it again later.")
        raise Conflict("mail_not_sent", sentence) from error


def revoke_invitation(*, invitation: Invitation, actor: Actor, actor_role: str) -> None:
    """Take an offer back.

    Raises `Conflict` `invitation_closed` when it is accepted or revoked already; `Forbidden` when the actor's role
    could not have given it.
    """
    _check_may_give(actor_role, invitation.role)
    with transaction.atomic():
        open_ones = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None)
        if not open_ones.update(revoked_at=now()):
            raise _closed()
        record_audit(actor, "invitation.revoke", invitation)


def accept_invitation(*, token: str, user: User) -> Membership:
    """Join with a mailed link. It works once, and only for the person it was sent to.

    Raises `NotFound` for a link that is unknown, expired, used or revoked; `Forbidden` for somebody else's.
    """
    with transaction.atomic():
        row = Invitation.objects.select_for_update(no_key=True).filter(token_hash=hash_token(token)).first()
        if row is None or row.accepted_at is not None or row.revoked_at is not None or row.expires_at <= now():
            raise NotFound("invitation")
        if row.email.lower() != user.email.lower():
            raise Forbidden("wrong_person", _("The invitation was sent to another e-mail address."))
        row.accepted_at = now()
        row.accepted_by = user
        row.save(update_fields=["accepted_at", "accepted_by"])
        membership, made = Membership.objects.get_or_create(
            organisation_id=row.organisation_id, user=user, defaults={"role": row.role}
        )
        if not made and membership.archived_at is not None:
            membership.role, membership.archived_at = row.role, None
            membership.save(update_fields=["role", "archived_at"])
        # The link was mailed to this address.
        address, _made = EmailAddress.objects.get_or_create(user=user, email=user.email.lower())
        if address.set_verified():
            address.set_as_primary(conditional=True)
        actor = Actor("user", str(user.pk), user.get_full_name())
        record_audit(actor, "invitation.accept", row, data={"role": row.role})
    return membership


def register_invited(*, token: str, name: str, password: str) -> User:
    """Make the account of an invited person and join with it. Raises `NotFound`, `Conflict` `account_exists`."""
    with transaction.atomic():
        row = Invitation.objects.select_for_update(no_key=True).filter(token_hash=hash_token(token)).first()
        if row is None or find_invitation(token) is None:
            raise NotFound("invitation")
        if User.objects.filter(email__iexact=row.email).exists():
            raise Conflict("account_exists", _("There is an account with this e-mail address: sign in with it."))
        user = User.objects.create_user(row.email, password, name=name)
        accept_invitation(token=token, user=user)
    return user


def change_role(*, membership: Membership, actor: Actor, actor_role: str, role: str) -> Membership:
    """Give a member another role.

    Raises `Invalid` for the role, `Forbidden` when the actor's role may not give or take it, `Conflict` `last_owner`.
    """
    _check_role(role)
    with transaction.atomic():
        locked = _locked(membership)
        _check_may_give(actor_role, role)
        _check_may_give(actor_role, locked.role)
        if locked.role != role:
            if locked.role == Role.OWNER:
                _keep_an_owner(locked)
            before, locked.role = locked.role, role
            locked.save(update_fields=["role"])
            record_audit(actor, "membership.change_role", locked, data={"before": before, "after": role})
    return locked


def remove_member(*, membership: Membership, actor: Actor, actor_role: str) -> None:
    """End a membership. Raises `Forbidden` when the actor's role may not, `Conflict` `last_owner`."""
    with transaction.atomic():
        locked = _locked(membership)
        _check_may_give(actor_role, locked.role)
        if locked.role == Role.OWNER:
            _keep_an_owner(locked)
        locked.archived_at = now()
        locked.save(update_fields=["archived_at"])
        record_audit(actor, "membership.remove", locked)


def _locked(membership: Membership) -> Membership:
    """The membership as it is now. The organisation's lock makes two owners who demote each other take turns."""
    Organisation.objects.select_for_update(no_key=True).get(pk=membership.organisation_id)
    row = Membership.objects.select_related("user").filter(pk=membership.pk, archived_at=None).first()
    if row is None:
        raise NotFound("member")
    return row


def _keep_an_owner(membership: Membership) -> None:
    others = Membership.objects.filter(organisation_id=membership.organisation_id, role=Role.OWNER, archived_at=None)
    if not others.exclude(pk=membership.pk).filter(user__is_active=True).exists():
        raise Conflict("last_owner", _("An organisation needs at least one owner."))


def _check_role(role: str) -> None:
    if role not in Role.values:
        raise Invalid.field("role", _("Must be one of: %(roles)s.") % {"roles": ", ".join(Role.values)})


def _check_may_give(actor_role: str, role: str) -> None:
    needed = Permission.OWNERS_MANAGE if role == Role.OWNER else Permission.MEMBERS_MANAGE
    if not may(actor_role, needed):
        raise Forbidden("role_forbidden", _("Your role may not give or take the role %(role)s.") % {"role": role})
