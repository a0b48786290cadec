"""Secrets at rest: text that only this installation's keys can read, bound to the place it was written for.

A sealed text is `v1:<key id>:<base64url of nonce, ciphertext and tag>`: AES-256-GCM (NIST SP 800-38D) under a key
derived from the named one for the text's *context*, which is also its associated data. A context is
`<app>.<model>.<field>:<organisation id>`, so a row copied into another column or organisation does not open.
Deriving a key per context keeps the random 96-bit nonces far from their limit of 2**32 texts per key.

Keys are `settings.FIELD_ENCRYPTION_KEYS`, urlsafe base64 of 32 bytes each: the first seals, all of them open.
Without any, one is derived from `SECRET_KEY`; a system check refuses that outside of development and demo.
`manage.py rotate_encryption` seals everything anew with the first key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models.query_utils import DeferredAttribute

VERSION = "v1"
KEY_BYTES = 32
NONCE_BYTES = 12


class DecryptionError(Exception):
    """A sealed text does not open. Says where it stands and which key it asks for, never what it holds."""


class Sealed(str):
    """A text as it stands in the database. Its repr tells the key and not the content."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<sealed with key {key_id_of(self) or '?'}>"


class Keyring:
    """The installation's keys: `current` is the id of the one that seals."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self.keys = {self.identify(key): key for key in keys}
        self.current = self.identify(keys[0])

    @staticmethod
    def identify(key: bytes) -> str:
        """The public name of a key: eight hexadecimal digits that do not help to guess it."""
        return hashlib.sha256(b"webio field encryption key id\0" + key).hexdigest()[:8]

    @lru_cache(maxsize=4096)  # noqa: B019 - keyrings live as long as the process
    def cipher(self, key_id: str, context: str) -> AESGCM:
        """The cipher of one key in one context. Raises KeyError for a key that is not in the ring."""
        return AESGCM(hmac.digest(self.keys[key_id], context.encode(), "sha256"))


def keyring() -> Keyring:
    """The keys of the settings as they are now. Raises ImproperlyConfigured for a malformed key."""
    return _keyring(tuple(settings.FIELD_ENCRYPTION_KEYS), settings.SECRET_KEY)


@lru_cache(maxsize=8)
def _keyring(encoded: tuple[str, ...], secret_key: str) -> Keyring:
    if not encoded:
        return Keyring((hashlib.sha256(b"webio field encryption\0" + secret_key.encode()).digest(),))
    return Keyring(tuple(decode_key(key, number) for number, key in enumerate(encoded, 1)))


def decode_key(encoded: str, number: int = 1) -> bytes:
    """The 32 bytes of the `number`-th key of the settings. Raises ImproperlyConfigured, without showing it."""
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ImproperlyConfigured(f"FIELD_ENCRYPTION_KEYS: key {number} is not urlsafe base64 of {KEY_BYTES} bytes.")
    return key


def new_key() -> str:
    """A fresh key for `FIELD_ENCRYPTION_KEYS`."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def key_id_of(sealed: str) -> str:
    """The id of the key that sealed a text; "" when it is not a sealed text."""
    parts = sealed.split(":")
    return parts[1] if len(parts) == 3 and parts[0] == VERSION else ""


def encrypt(value: str, context: str) -> Sealed:
    """`value` sealed with the first key for `context`."""
    ring = keyring()
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + ring.cipher(ring.current, context).encrypt(nonce, value.encode(), context.encode())
    return Sealed(f"{VERSION}:{ring.current}:{base64.urlsafe_b64encode(sealed).decode()}")


def decrypt(sealed: str, context: str) -> str:
    """What `encrypt` was given. Raises `DecryptionError` naming `context` and the key's id."""
    key_id = key_id_of(sealed)
    if not key_id:
        raise DecryptionError(f"{context}: the stored text is not an encrypted one.")
    ring = keyring()
    if key_id not in ring.keys:
        raise DecryptionError(f"{context}: encrypted with key {key_id}, which is not in FIELD_ENCRYPTION_KEYS.")
    try:
        raw = base64.urlsafe_b64decode(sealed.rpartition(":")[2])
        plain = ring.cipher(key_id, context).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], context.encode())
    except (InvalidTag, ValueError):
        raise DecryptionError(
            f"{context}: the text encrypted with key {key_id} was altered or belongs to another place."
        ) from None
    return plain.decode()


class EncryptedAttribute(DeferredAttribute):
    """Opens a sealed value when it is asked for, so that no loaded instance carries plain secrets about."""

    field: EncryptedTextField

    def __get__(self, instance: models.Model | None, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if instance is not None and isinstance(value, Sealed):
            return decrypt(value, self.field.context_of(instance))
        return value

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


class EncryptedTextField(models.TextField):
    """Text that is plain on the instance and sealed in the database. The empty text is stored as it is.

    `bound_to` names the model's attribute whose value the text is bound to (its column is read with every
    decryption: load it along with `only()`); None for models that belong to nobody.

    It can only be filtered by `""`, null and sealed values, and only be written through instances (`save`,
    `bulk_create`): a query knows no instance, hence no context. `values()` gives the sealed text, which
    `open` reads. It stays out of forms unless `editable=True` is said.
    """

    descriptor_class = EncryptedAttribute

    def __init__(self, *args: Any, bound_to: str | None = "organisation_id", **kwargs: Any) -> None:
        kwargs.setdefault("editable", False)
        self.bound_to = bound_to
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        if self.bound_to != "organisation_id":
            kwargs["bound_to"] = self.bound_to
        return name, path, args, kwargs

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        names = {field.attname for field in self.model._meta.concrete_fields}
        if self.bound_to is None or self.bound_to in names:
            return super().check(**kwargs)
        return [
            *super().check(**kwargs),
            checks.Error(
                f"The encrypted field is bound to “{self.bound_to}”, which {self.model.__name__} does not have.",
                obj=self,
                id="core.E010",
            ),
        ]

    def context(self, owner: Any) -> str:
        """The context of this field's text in the rows of `owner` (an organisation's id)."""
        return f"{self.model._meta.label_lower}.{self.name}:{'' if self.bound_to is None else owner}"

    def context_of(self, instance: models.Model) -> str:
        """The context of this field's text on `instance`. Raises ValueError when its owner is not set yet."""
        owner = None if self.bound_to is None else getattr(instance, self.bound_to)
        if owner is None and self.bound_to is not None:
            raise ValueError(f"{self.model._meta.label}.{self.name} needs {self.bound_to} to be set first.")
        return self.context(owner)

    def open(self, sealed: str, owner: Any) -> str:
        """The plain text of a value read by `values()` or by SQL from a row of `owner`. Raises `DecryptionError`."""
        return decrypt(sealed, self.context(owner)) if sealed else ""

    def from_db_value(self, value: str | None, *_: Any) -> str | None:
        return Sealed(value) if value else value

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = model_instance.__dict__.get(self.attname)
        if isinstance(value, str) and value and not isinstance(value, Sealed):
            value = encrypt(value, self.context_of(model_instance))
            model_instance.__dict__[self.attname] = value
        return value

    def get_prep_value(self, value: Any) -> Any:
        if value in (None, "") or isinstance(value, Sealed) or hasattr(value, "resolve_expression"):
            return super().get_prep_value(value)
        raise TypeError(
            f"{self.model._meta.label}.{self.name} is encrypted: it is written by saving instances and filtered "
            'only by "" and null.'
        )

    def value_to_string(self, obj: models.Model) -> str:
        """For serialisers: the sealed text, so that a dump holds no secrets."""
        return str(self.pre_save(obj, False) or "")


def encrypted_fields() -> Iterator[EncryptedTextField]:
    """Every encrypted field of every installed model."""
    for model in apps.get_models():
        if not model._meta.proxy:
            for field in model._meta.local_fields:
                if isinstance(field, EncryptedTextField):
                    yield field
