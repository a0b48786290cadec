"""The organisation itself: who am I, and the x-webio-token."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from core.errors import Invalid
from organisations.actions import create_webio_token
from organisations.api.docs import documented
from organisations.api.fields import Body, Id, Text
from organisations.api.views import ApiView


class OrganisationShape(serializers.Serializer[Any]):
    """The organisation a key belongs to, and what the key may do."""

    organisationId = serializers.CharField()
    name = serializers.CharField()
    slug = serializers.CharField()
    timeZone = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())


class CreateToken(Body):
    """POST /token."""

    organisationId = Id()
    secretKey = Text(minimum=1, maximum=1000)


class TokenShape(serializers.Serializer[Any]):
    """The token, shown once."""

    token = serializers.CharField()
    createdAt = serializers.DateTimeField()
    organisationId = serializers.CharField()


class OrganisationView(ApiView):
    """The key's organisation."""

    #: Every key may ask what it is; so any scope will do.
    scopes = {"GET": ""}

    @documented(
        "Who am I",
        scope="any",
        answer=OrganisationShape,
        tag="Organisation",
        example={
            "organisationId": "17",
            "name": "Brightwater Energy",
            "slug": "brightwater",
            "timeZone": "Europe/Dublin",
            "scopes": ["conversations:read", "conversations:write"],
        },
        operation_id="readOrganisation",
    )
    def get(self, request: Request) -> Response:
        organisation = self.organisation
        return Response(
            {
                "organisationId": str(organisation.pk),
                "name": organisation.name,
                "slug": organisation.slug,
                "timeZone": organisation.time_zone,
                "scopes": self.key.scopes,
            }
        )


class TokenView(ApiView):
    """The x-webio-token."""

    scopes = {"POST": "token:write"}

    @documented(
        "Generate the x-webio-token",
        scope="token:write",
        answer=TokenShape,
        status=201,
        body=CreateToken,
        tag="Organisation",
        post=True,
        description="A static HS256 JWT, signed with your secret key of at least 32 bytes, that every request to your "
        "endpoints carries from now on. The secret key is not stored.",
        example={"token": "eyJhbGciOi…", "createdAt": "2026-01-31T09:00:00.000Z", "organisationId": "17"},
        request_example={"organisationId": "17", "secretKey": "a secret key of at least thirty-two bytes"},
        operation_id="createToken",
    )
    def post(self, request: Request) -> Response:
        values = self.read(CreateToken)
        if values["organisationId"] != self.organisation.pk:
            raise Invalid.field("organisationId", _("Must be the organisation of the API key."))
        row, token = create_webio_token(
            organisation=self.organisation,
            actor=self.actor,
            secret_key=values["secretKey"],
            api_key=self.key,
        )
        created = row.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Response({"token": token, "createdAt": created, "organisationId": str(row.organisation_id)}, status=201)
