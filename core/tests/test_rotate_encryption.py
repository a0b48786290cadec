"""`manage.py rotate_encryption` moves every text to the first key."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from core.encryption import Sealed, key_id_of, keyring, new_key
from organisations.models import IdempotencyKey, Organisation, WebioToken
from webhooks.models import Webhook

OLD, NEW = new_key(), new_key()


@pytest.fixture
def tokens(db: None, settings: object) -> list[WebioToken]:
    """Seven tokens of two organisations and a webhook under the old key; the new key stands first already."""
    settings.FIELD_ENCRYPTION_KEYS = [OLD]
    acme = Organisation.objects.create(name="Acme", slug="acme")
    globex = Organisation.objects.create(name="Globex", slug="globex")
    rows = [WebioToken.objects.create(organisation=(acme, globex)[i % 2], token=f"secret {i}") for i in range(7)]
    Webhook.objects.create(organisation=acme, name="Hook", callback_url="https://example.com", secret="whsec_x")
    settings.FIELD_ENCRYPTION_KEYS = [NEW, OLD]
    return rows


def rotate(*arguments: str) -> str:
    out = StringIO()
    call_command("rotate_encryption", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def key_ids() -> set[str]:
    return {key_id_of(text) for text in WebioToken.objects.values_list("token", flat=True)}


def test_every_text_is_sealed_with_the_first_key_and_still_opens(tokens: list[WebioToken], settings: object) -> None:
    told = rotate("--batch-size", "3")
    assert "organisations.WebioToken.token: 7 encrypted" in told
    assert "webhooks.Webhook.secret: 1 encrypted" in told
    settings.FIELD_ENCRYPTION_KEYS = [NEW]
    assert [row.token for row in WebioToken.objects.order_by("id")] == [f"secret {i}" for i in range(7)]
    assert Webhook.objects.get().secret == "whsec_x"
    assert Webhook.objects.get().previous_secret == ""


def test_a_second_run_changes_nothing(tokens: list[WebioToken]) -> None:
    rotate()
    before = list(WebioToken.objects.order_by("id").values_list("token", flat=True))
    assert "organisations.WebioToken.token: 0 encrypted" in rotate()
    assert list(WebioToken.objects.order_by("id").values_list("token", flat=True)) == before


def test_checking_counts_and_changes_nothing(tokens: list[WebioToken]) -> None:
    before = key_ids()
    with pytest.raises(CommandError, match="8 values are not encrypted with the first key"):
        rotate("--check")
    assert key_ids() == before
    rotate()
    assert "organisations.WebioToken.token: 0 under other keys" in rotate("--check")


def test_a_text_that_does_not_open_is_left_alone_and_reported(tokens: list[WebioToken]) -> None:
    broken = tokens[3]
    WebioToken.objects.filter(pk=broken.pk).update(token=Sealed(f"v1:{keyring().identify(b'x')}:AAAA"))
    with pytest.raises(CommandError, match="1 values could not be read"):
        rotate("--batch-size", "2")
    sealed = dict(WebioToken.objects.values_list("pk", "token"))
    assert sealed.pop(broken.pk).endswith(":AAAA")
    assert {key_id_of(text) for text in sealed.values()} == {keyring().current}


def test_a_text_written_meanwhile_keeps_what_its_writer_wrote(
    tokens: list[WebioToken], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.management.commands import rotate_encryption

    seal = rotate_encryption.encrypt

    def write_between(value: str, context: str) -> Sealed:
        if value == "secret 0":
            tokens[0].token = "newer"
            tokens[0].save()
        return seal(value, context)

    monkeypatch.setattr(rotate_encryption, "encrypt", write_between)
    rotate()
    assert WebioToken.objects.get(pk=tokens[0].pk).token == "newer"
    assert key_ids() == {keyring().current}


def test_nullable_and_empty_texts_are_passed_over(tokens: list[WebioToken]) -> None:
    told = rotate()
    assert "webhooks.Webhook.previous_secret: 0 encrypted" in told
    assert f"{IdempotencyKey._meta.label}.answer: 0 encrypted" in told


def test_a_batch_of_nothing_is_refused(db: None) -> None:
    with pytest.raises(CommandError, match="at least 1"):
        rotate("--batch-size", "0")
