"""A person's e-mail addresses: django-allauth's page, where it would take anybody's word."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.views import EmailView
from django.contrib import messages
from django.http import HttpRequest


class EmailAddresses(EmailView):  # type: ignore[misc]
    """Only an address that was verified becomes the one a person is known, invited and mailed by."""

    def _action_primary(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        address = self._get_email_address(request)
        if address is not None and not address.verified:
            told = "account/messages/unverified_primary_email.txt"
            get_adapter().add_message(request, messages.ERROR, told)
            return None
        return super()._action_primary(request, *args, **kwargs)
