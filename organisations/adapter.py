"""How people sign in and up, as far as it differs from django-allauth's defaults."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from django.conf import settings
from django.http import HttpRequest

from core.clients import client_address
from core.encryption import decrypt, encrypt


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Accounts come by invitation unless SIGN_UP_OPEN."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return bool(settings.SIGN_UP_OPEN)

    def get_client_ip(self, request: HttpRequest) -> str:
        """Whom sign-in throttles count."""
        return client_address(request) or "unknown"

    def get_login_redirect_url(self, request: Any) -> str:
        return "/"


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Seeds and recovery codes are encrypted at rest."""

    CONTEXT = "mfa.Authenticator"

    def encrypt(self, text: str) -> str:
        return encrypt(text, self.CONTEXT)

    def decrypt(self, encrypted_text: str) -> str:
        return decrypt(encrypted_text, self.CONTEXT)
