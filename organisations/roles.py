"""Who may do what in the panel: the one table, and the one function that reads it. It fails closed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from organisations.models import Membership, Organisation, Role

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from organisations.models import User


class Permission(StrEnum):
    """What a view can ask for."""

    ORGANISATION_VIEW = "organisation.view"
    ORGANISATION_MANAGE = "organisation.manage"
    MEMBERS_VIEW = "members.view"
    MEMBERS_MANAGE = "members.manage"
    OWNERS_MANAGE = "owners.manage"
    KEYS_VIEW = "keys.view"
    KEYS_MANAGE = "keys.manage"
    TOKEN_MANAGE = "token.manage"
    TOKEN_REVEAL = "token.reveal"
    WEBHOOKS_VIEW = "webhooks.view"
    WEBHOOKS_MANAGE = "webhooks.manage"
    DELIVERIES_VIEW = "deliveries.view"
    DELIVERIES_RESEND = "deliveries.resend"
    CONVERSATIONS_VIEW = "conversations.view"
    CONVERSATIONS_WORK = "conversations.work"
    SANDBOX_PLAY = "sandbox.play"
    AUDIT_VIEW = "audit.view"


_P = Permission
_VIEWER = frozenset({_P.ORGANISATION_VIEW, _P.WEBHOOKS_VIEW, _P.CONVERSATIONS_VIEW})
_AGENT = _VIEWER | {_P.CONVERSATIONS_WORK, _P.SANDBOX_PLAY, _P.MEMBERS_VIEW}
_DEVELOPER = _VIEWER | {
    _P.MEMBERS_VIEW,
    _P.KEYS_VIEW,
    _P.KEYS_MANAGE,
    _P.TOKEN_MANAGE,
    _P.WEBHOOKS_MANAGE,
    _P.DELIVERIES_VIEW,
    _P.DELIVERIES_RESEND,
    _P.SANDBOX_PLAY,
}
_ADMIN = _DEVELOPER | _AGENT | {_P.ORGANISATION_MANAGE, _P.MEMBERS_MANAGE, _P.AUDIT_VIEW}
_OWNER = _ADMIN | {_P.OWNERS_MANAGE, _P.TOKEN_REVEAL}

PERMISSIONS: dict[str, frozenset[Permission]] = {
    Role.OWNER: _OWNER,
    Role.ADMIN: _ADMIN,
    Role.DEVELOPER: _DEVELOPER,
    Role.AGENT: _AGENT,
    Role.VIEWER: _VIEWER,
}

#: Roles strongest first: a member of an organisation and of its parent acts with the stronger of the two.
STRENGTH = (Role.OWNER, Role.ADMIN, Role.DEVELOPER, Role.AGENT, Role.VIEWER)


def role_of(user: User | AnonymousUser, organisation: Organisation) -> str | None:
    """The role `user` acts with in `organisation`, or None: the membership's own or one of an ancestor."""
    if not user.is_authenticated or not user.is_active:
        return None
    line = lineage(organisation)
    roles = set(
        Membership.objects.filter(user_id=user.pk, organisation__in=line, archived_at=None).values_list(
            "role", flat=True
        )
    )
    return next((role for role in STRENGTH if role in roles), None)


def lineage(organisation: Organisation) -> list[int]:
    """Ids of the organisation and its ancestors, nearest first. Ends even in a loop, which `clean` refuses."""
    ids = [organisation.pk]
    parent_id = organisation.parent_id
    while parent_id is not None and parent_id not in ids:
        ids.append(parent_id)
        parent_id = Organisation.objects.values_list("parent_id", flat=True).get(pk=parent_id)
    return ids


def may(role: str | None, permission: Permission) -> bool:
    """Whether a role has a permission. An unknown role has none."""
    return role is not None and permission in PERMISSIONS.get(role, frozenset())
