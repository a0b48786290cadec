"""Secrets rest sealed, and open only where they were written."""

from __future__ import annotations

import pickle
import re

import pytest
from django.core import serializers
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, models, transaction
from django.test.utils import isolate_apps

from core.encryption import (
    DecryptionError,
    EncryptedTextField,
    Sealed,
    decrypt,
    encrypt,
    encrypted_fields,
    key_id_of,
    keyring,
    new_key,
)
from organisations.models import Organisation, WebioToken

SECRET = "eyJ-a token with ünïcode-✓"


@pytest.fixture
def organisation(db: None) -> Organisation:
    return Organisation.objects.create(name="Acme", slug="acme")


@pytest.fixture
def token(organisation: Organisation) -> WebioToken:
    return WebioToken.objects.create(organisation=organisation, token=SECRET)


def stored(token: WebioToken) -> str:
    """What stands in the database, past every conversion."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT token FROM organisations_webiotoken WHERE id = %s", [token.pk])
        return cursor.fetchone()[0]


def store(token: WebioToken, text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE organisations_webiotoken SET token = %s WHERE id = %s", [text, token.pk])


def test_the_database_holds_a_sealed_text_that_names_its_key(token: WebioToken) -> None:
    assert re.fullmatch(rf"v1:{keyring().current}:[A-Za-z0-9_=-]+", stored(token))
    assert SECRET not in stored(token)


def test_the_instance_gives_the_plain_text_however_it_was_loaded(token: WebioToken) -> None:
    rows = WebioToken.objects.filter(pk=token.pk)
    assert token.token == SECRET
    assert rows.get().token == SECRET
    assert rows.only("token").get().token == SECRET
    assert rows.defer("token").get().token == SECRET
    assert rows.select_related("organisation").get().token == SECRET
    token.refresh_from_db()
    assert token.token == SECRET


def test_values_give_the_sealed_text_which_the_field_opens(token: WebioToken) -> None:
    sealed, owner = WebioToken.objects.values_list("token", "organisation_id").get()
    assert sealed == stored(token)
    assert WebioToken._meta.get_field("token").open(sealed, owner) == SECRET


def test_bulk_create_seals(organisation: Organisation) -> None:
    WebioToken.objects.bulk_create([WebioToken(organisation=organisation, token=f"secret {i}") for i in range(3)])
    rows = list(WebioToken.objects.order_by("id"))
    assert [row.token for row in rows] == ["secret 0", "secret 1", "secret 2"]
    assert len({stored(row) for row in rows}) == 3
    assert all(stored(row).startswith("v1:") for row in rows)


def test_saving_an_untouched_instance_keeps_the_sealed_text(token: WebioToken) -> None:
    before = stored(token)
    row = WebioToken.objects.get()
    assert row.token == SECRET
    row.save()
    assert stored(token) == before


def test_a_new_value_is_sealed_anew(token: WebioToken) -> None:
    before = stored(token)
    token.token = "another"
    token.save(update_fields=["token"])
    assert stored(token) != before
    assert WebioToken.objects.get().token == "another"


def test_the_same_text_is_sealed_differently_each_time() -> None:
    assert encrypt("same", "place") != encrypt("same", "place")


def test_no_plain_text_stays_on_a_saved_or_loaded_instance(token: WebioToken) -> None:
    row = WebioToken.objects.get()
    assert row.token == SECRET
    for instance in (token, row):
        assert "token with" not in repr(instance.__dict__)
        assert SECRET.encode() not in pickle.dumps(instance)
    assert repr(row.__dict__["token"]) == f"<sealed with key {keyring().current}>"


def test_a_serialised_instance_holds_no_secret(token: WebioToken) -> None:
    assert stored(token) in serializers.serialize("json", [token])
    assert "token with" not in serializers.serialize("json", [WebioToken(organisation_id=1, token=SECRET)])


def test_the_empty_text_is_stored_as_it_is_and_can_be_asked_for(token: WebioToken) -> None:
    token.token = ""
    token.save()
    assert stored(token) == ""
    assert WebioToken.objects.get(token="").token == ""
    assert not WebioToken.objects.exclude(token="").exists()


def test_a_query_can_neither_write_nor_look_for_a_plain_text(token: WebioToken) -> None:
    before = stored(token)
    with pytest.raises(TypeError, match="is encrypted"), transaction.atomic():
        WebioToken.objects.update(token="plain")
    with pytest.raises(TypeError, match="is encrypted"), transaction.atomic():
        WebioToken.objects.filter(token=SECRET).exists()
    with pytest.raises(TypeError, match="is encrypted"), transaction.atomic():
        WebioToken.objects.bulk_update([token], ["token"])
    assert stored(token) == before


def test_without_an_owner_nothing_is_sealed(db: None) -> None:
    with pytest.raises(ValueError, match="needs organisation_id"), transaction.atomic():
        WebioToken(token=SECRET).save()
    assert not WebioToken.objects.exists()


def test_a_sealed_text_does_not_open_in_another_organisation_or_field(token: WebioToken) -> None:
    other = Organisation.objects.create(name="Globex", slug="globex")
    copy = WebioToken.objects.create(organisation=other, token="theirs")
    store(copy, stored(token))
    with pytest.raises(DecryptionError, match=rf"organisations\.webiotoken\.token:{other.pk}.*belongs to another"):
        _ = WebioToken.objects.get(pk=copy.pk).token
    with pytest.raises(DecryptionError, match="belongs to another place"):
        decrypt(stored(token), f"organisations.webiotoken.other:{token.organisation_id}")


def test_an_altered_text_does_not_open(token: WebioToken) -> None:
    head, _, tail = stored(token).rpartition(":")
    flipped = tail[:20] + ("A" if tail[20] != "A" else "B") + tail[21:]
    for text in (f"{head}:{flipped}", f"{head}:", f"{head}:AAAA", f"{head}:not base64!", f"{head}:é"):
        store(token, text)
        with pytest.raises(DecryptionError, match="was altered"):
            _ = WebioToken.objects.get().token


def test_a_plain_text_in_the_database_is_not_taken_for_a_secret(token: WebioToken) -> None:
    store(token, "planted")
    with pytest.raises(DecryptionError, match="not an encrypted one") as caught:
        _ = WebioToken.objects.get().token
    assert "planted" not in str(caught.value)


def test_a_missing_key_is_named_with_the_field_and_without_the_text(token: WebioToken, settings: object) -> None:
    key_id = key_id_of(stored(token))
    settings.FIELD_ENCRYPTION_KEYS = [new_key()]
    with pytest.raises(DecryptionError) as caught:
        _ = WebioToken.objects.get().token
    assert "organisations.webiotoken.token" in str(caught.value)
    assert key_id in str(caught.value)
    assert stored(token) not in str(caught.value)


def test_the_first_key_seals_and_every_key_opens(settings: object) -> None:
    old, new = new_key(), new_key()
    settings.FIELD_ENCRYPTION_KEYS = [old]
    under_old = encrypt("text", "place")
    settings.FIELD_ENCRYPTION_KEYS = [new, old]
    under_new = encrypt("text", "place")
    assert decrypt(under_old, "place") == decrypt(under_new, "place") == "text"
    settings.FIELD_ENCRYPTION_KEYS = [new]
    assert decrypt(under_new, "place") == "text"
    with pytest.raises(DecryptionError, match="not in FIELD_ENCRYPTION_KEYS"):
        decrypt(under_old, "place")


def test_without_keys_one_comes_from_the_secret_key(settings: object) -> None:
    settings.FIELD_ENCRYPTION_KEYS = []
    settings.SECRET_KEY = "one"
    sealed = encrypt("text", "place")
    assert decrypt(sealed, "place") == "text"
    settings.SECRET_KEY = "two"
    with pytest.raises(DecryptionError):
        decrypt(sealed, "place")


@pytest.mark.parametrize("key", ["", "short", "A" * 42, "ä" * 43, "!" * 44, "A" * 43 + "=AAAA"])
def test_a_malformed_key_is_refused_by_its_number_alone(settings: object, key: str) -> None:
    settings.FIELD_ENCRYPTION_KEYS = [new_key(), key]
    with pytest.raises(ImproperlyConfigured, match="key 2 is not") as caught:
        keyring()
    assert not key or key not in str(caught.value)


def test_the_field_stays_out_of_forms_and_migrates_to_itself() -> None:
    field = EncryptedTextField(bound_to=None, default="")
    assert not field.editable
    _, path, args, kwargs = field.deconstruct()
    assert path == "core.encryption.EncryptedTextField"
    assert EncryptedTextField(*args, **kwargs).bound_to is None
    assert "bound_to" not in EncryptedTextField().deconstruct()[3]


@isolate_apps("core")
def test_a_field_bound_to_nothing_the_model_has_fails_its_check() -> None:
    class Loose(models.Model):  # noqa: DJ008
        secret = EncryptedTextField()

        class Meta:
            app_label = "core"

    class Own(models.Model):  # noqa: DJ008
        secret = EncryptedTextField(bound_to=None)

        class Meta:
            app_label = "core"

    assert [error.id for error in Loose._meta.get_field("secret").check()] == ["core.E010"]
    assert Own._meta.get_field("secret").check() == []


def test_every_encrypted_field_is_known_to_the_rotation() -> None:
    names = {f"{field.model._meta.label_lower}.{field.name}" for field in encrypted_fields()}
    assert {"organisations.webiotoken.token", "webhooks.webhook.secret", "webhooks.webhook.headers"} <= names


def test_a_sealed_text_is_a_string_for_the_database() -> None:
    assert key_id_of(Sealed("v1:abc:def")) == "abc"
    assert key_id_of("plain") == key_id_of("v2:abc:def") == ""
