"""Signing in by e-mail: throttled, with a second factor if one wants, no open sign-up; passwords are reset by mail."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from django.core import mail
from django.core.cache import cache
from django.test import Client

from conftest import PASSWORD, Cast
from organisations.models import User

pytestmark = pytest.mark.once

LOGIN = "/accounts/login/"
SECOND = "/accounts/2fa/authenticate/"


@pytest.fixture(autouse=True)
def _fresh_throttles() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def sign_in(client: Client, email: str, password: str = PASSWORD, **fields: str) -> Any:
    return client.post(LOGIN, {"login": email, "password": password, **fields})


def signed_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def code(secret: str) -> str:
    """What an app on a phone shows now."""
    return format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time()))))


@pytest.mark.parametrize("spelling", ["owner@acme.example", "OWNER@Acme.Example"])
def test_one_signs_in_by_e_mail_and_lands_where_one_wanted(acme: Cast, client: Client, spelling: str) -> None:
    wanted = client.get("/o/acme/settings/people/")["Location"]
    assert wanted == f"{LOGIN}?next=/o/acme/settings/people/"
    assert 'value="/o/acme/settings/people/"' in client.get(wanted).content.decode()
    answer = sign_in(client, spelling, next="/o/acme/settings/people/")
    assert (answer.status_code, answer["Location"]) == (302, "/o/acme/settings/people/")
    assert signed_in(client)


def test_one_lands_in_the_only_organisation(acme: Cast, client: Client) -> None:
    assert sign_in(client, acme.owner.email)["Location"] == "/"
    assert client.get("/")["Location"] == "/o/acme/integrations/"


def test_nobody_is_led_to_another_host(acme: Cast, client: Client) -> None:
    assert sign_in(client, acme.owner.email, next="https://evil.example/")["Location"] == "/"


@pytest.mark.parametrize("email", ["owner@acme.example", "nobody@acme.example"])
def test_a_wrong_password_tells_not_who_exists(acme: Cast, client: Client, email: str) -> None:
    shown = sign_in(client, email, "wrong").content.decode()
    assert "The email address and/or password you specified are not correct." in shown
    assert not signed_in(client)


def test_who_is_inactive_stays_out(acme: Cast, client: Client) -> None:
    User.objects.filter(pk=acme.owner.pk).update(is_active=False)
    sign_in(client, acme.owner.email)
    assert not signed_in(client)


def test_guessing_is_throttled_per_person(acme: Cast, client: Client) -> None:
    for _ in range(5):
        assert sign_in(client, acme.owner.email, "wrong").status_code == 200
    shown = sign_in(client, acme.owner.email).content.decode()
    assert "Too many failed login attempts" in shown
    assert not signed_in(client)
    # From anywhere: the throttle is the person's, not the address's.
    elsewhere = Client(REMOTE_ADDR="192.0.2.7")
    sign_in(elsewhere, acme.owner.email)
    assert not signed_in(elsewhere)
    # Others are not kept out.
    sign_in(client, acme.admin.email)
    assert signed_in(client)


def test_guessing_is_throttled_per_address(acme: Cast, client: Client) -> None:
    answers = [sign_in(client, f"guess{number}@acme.example", "wrong").status_code for number in range(31)]
    assert answers[:30] == [200] * 30
    assert answers[30] == 429


@pytest.mark.parametrize(("proxies", "kept_out"), [([], True), (["127.0.0.1"], False)])
def test_only_a_trusted_proxy_says_which_address_guesses(
    acme: Cast, client: Client, settings: Any, proxies: list[str], kept_out: bool
) -> None:
    settings.TRUSTED_PROXIES = proxies
    fields = {"login": "guess@acme.example", "password": "wrong"}
    for number in range(30):
        address = {"X-Forwarded-For": f"192.0.2.{number % 2}"}
        client.post("/accounts/login/", {**fields, "login": f"guess{number}@acme.example"}, headers=address)
    answer = client.post("/accounts/login/", fields, headers={"X-Forwarded-For": "192.0.2.9"})
    assert answer.status_code == (429 if kept_out else 200)


def test_passwords_are_not_logged(acme: Cast, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        sign_in(client, acme.owner.email, "a password that is wrong")
        sign_in(client, acme.owner.email)
    logged = str([record.__dict__ for record in caplog.records])
    assert "a password that is wrong" not in logged
    assert PASSWORD not in logged


def test_nobody_signs_up_without_an_invitation(client: Client, db: None) -> None:
    fields = {"email": "new@acme.example", "password1": "a long and odd one", "password2": "a long and odd one"}
    assert "closed" in client.get("/accounts/signup/").content.decode().lower()
    client.post("/accounts/signup/", fields)
    assert not User.objects.exists()


def test_an_installation_may_open_sign_up(client: Client, db: None, settings: Any) -> None:
    settings.SIGN_UP_OPEN = True
    fields = {"email": "new@acme.example", "password1": "a long and odd one", "password2": "a long and odd one"}
    client.post("/accounts/signup/", fields)
    assert User.objects.get().email == "new@acme.example"
    assert "You belong to no organisation yet" in client.get("/", follow=True).content.decode()


def test_a_password_is_reset_by_mail_once(acme: Cast, client: Client) -> None:
    client.post("/accounts/password/reset/", {"email": acme.owner.email})
    (message,) = mail.outbox
    assert message.to == [acme.owner.email]
    found = re.search(r"https?://[^/\s]+(/accounts/password/reset/key/\S+)", str(message.body))
    assert found
    form = client.get(found[1], follow=True)
    page = form.redirect_chain[-1][0]
    assert found[1] != page
    fields = {"password1": "quite another odd one", "password2": "quite another odd one"}
    assert client.post(page, fields).status_code == 302
    acme.owner.refresh_from_db()
    assert acme.owner.check_password("quite another odd one")
    again = Client()
    shown = again.get(found[1], follow=True)
    assert "password1" not in shown.content.decode()


def test_a_reset_link_is_not_in_the_log(acme: Cast, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.post("/accounts/password/reset/", {"email": acme.owner.email})
    found = re.search(r"/accounts/password/reset/key/([^/\s]+)", str(mail.outbox[0].body))
    assert found
    with caplog.at_level(logging.INFO):
        client.get(found[0] + "/", follow=True)
    assert found[1] not in str([record.__dict__ for record in caplog.records])


def test_a_reset_for_nobody_looks_the_same(acme: Cast, client: Client) -> None:
    known = client.post("/accounts/password/reset/", {"email": acme.owner.email})
    unknown = client.post("/accounts/password/reset/", {"email": "nobody@acme.example"})
    assert (known.status_code, known["Location"]) == (unknown.status_code, unknown["Location"])
    assert all(acme.owner.email not in message.to for message in mail.outbox[1:])


def test_a_weak_password_is_refused(acme: Cast, client: Client) -> None:
    client.force_login(acme.owner)
    fields = {"oldpassword": PASSWORD, "password1": "short", "password2": "short"}
    answer = client.post("/accounts/password/change/", fields)
    assert "at least 10 characters" in answer.content.decode()
    acme.owner.refresh_from_db()
    assert acme.owner.check_password(PASSWORD)


@pytest.fixture
def second(acme: Cast) -> str:
    """The secret of the owner's second factor."""
    secret: str = generate_totp_secret()
    TOTP.activate(acme.owner, secret)
    RecoveryCodes.activate(acme.owner)
    return secret


def test_who_has_a_second_factor_is_asked_for_it(acme: Cast, client: Client, second: str) -> None:
    assert sign_in(client, acme.owner.email)["Location"].startswith(SECOND)
    assert not signed_in(client)
    assert client.get("/o/acme/settings/").status_code == 302
    assert client.post(SECOND, {"code": "000000"}).status_code == 200
    assert not signed_in(client)
    client.post(SECOND, {"code": code(second)})
    assert signed_in(client)
    assert client.get("/o/acme/settings/").status_code == 200


def test_a_code_works_once(acme: Cast, client: Client, second: str) -> None:
    shown = code(second)
    for _ in range(2):
        other = Client()
        sign_in(other, acme.owner.email)
        other.post(SECOND, {"code": shown})
    assert not signed_in(other)


def test_a_recovery_code_works_once(acme: Cast, second: str) -> None:
    recovery = RecoveryCodes(Authenticator.objects.get(user=acme.owner, type="recovery_codes")).get_unused_codes()[0]
    results = []
    for _ in range(2):
        client = Client()
        sign_in(client, acme.owner.email)
        client.post(SECOND, {"code": recovery})
        results.append(signed_in(client))
    assert results == [True, False]


def test_guessing_codes_is_throttled(acme: Cast, client: Client, second: str) -> None:
    sign_in(client, acme.owner.email)
    for _ in range(5):
        client.post(SECOND, {"code": "000000"})
    client.post(SECOND, {"code": code(second)})
    assert not signed_in(client)


def test_a_second_factor_is_set_up_in_the_account(acme: Cast, client: Client) -> None:
    sign_in(client, acme.owner.email)
    asked = client.get("/accounts/2fa/totp/activate/", follow=True)
    again = asked.redirect_chain[-1][0]
    assert again.startswith("/accounts/reauthenticate/")
    page = client.post(again, {"password": PASSWORD}, follow=True)
    secret = page.context["form"].secret
    client.post("/accounts/2fa/totp/activate/", {"code": code(secret)})
    assert set(Authenticator.objects.values_list("user", "type")) == {
        (acme.owner.pk, "totp"),
        (acme.owner.pk, "recovery_codes"),
    }


def test_an_address_is_changed_with_the_password_and_once_verified(acme: Cast, client: Client) -> None:
    sign_in(client, acme.viewer.email)
    wanted = "ceo@acme.example"
    asked = client.post("/accounts/email/", {"action_add": "", "email": wanted})
    assert asked["Location"].startswith("/accounts/reauthenticate/")
    client.post(asked["Location"], {"password": PASSWORD})
    client.post("/accounts/email/", {"action_add": "", "email": wanted})
    client.post("/accounts/email/", {"action_primary": "", "email": wanted})
    acme.viewer.refresh_from_db()
    assert acme.viewer.email == "viewer@acme.example"
    link = re.search(r"/accounts/confirm-email/\S+", str(mail.outbox[-1].body))
    assert link is not None
    client.post(link[0])
    client.post("/accounts/email/", {"action_primary": "", "email": wanted})
    acme.viewer.refresh_from_db()
    assert acme.viewer.email == wanted


def test_staff_come_in_by_the_same_door(staff: User, client: Client) -> None:
    assert client.get("/admin/", follow=True).redirect_chain[-1][0].startswith(LOGIN)
    secret = generate_totp_secret()
    TOTP.activate(staff, secret)
    sign_in(client, staff.email, next="/admin/")
    assert client.get("/admin/").status_code == 302
    client.post(SECOND, {"code": code(secret)})
    assert client.get("/admin/").status_code == 200


def test_who_is_no_staff_stays_out_of_the_admin(acme: Cast, client: Client) -> None:
    client.force_login(acme.owner)
    assert client.get("/admin/").status_code in (302, 403)
    assert client.get("/admin/", follow=True).status_code == 403


def test_signing_out_ends_the_session(acme: Cast, client: Client) -> None:
    sign_in(client, acme.owner.email)
    assert client.get("/accounts/logout/").status_code == 200
    assert signed_in(client)
    client.post("/accounts/logout/")
    assert not signed_in(client)


@pytest.mark.parametrize(
    "page",
    [
        "/account/",
        "/accounts/password/change/",
        "/accounts/email/",
        "/accounts/2fa/",
        "/accounts/logout/",
        "/accounts/reauthenticate/",
    ],
)
def test_the_pages_of_an_account_wear_our_look(acme: Cast, client: Client, page: str) -> None:
    sign_in(client, acme.owner.email)
    shown = client.get(page, follow=True).content.decode()
    assert "css/base.css" in shown
    assert "<script>" not in shown
    assert " style=" not in shown


@pytest.mark.parametrize("page", [LOGIN, "/accounts/signup/", "/accounts/password/reset/"])
def test_the_pages_before_sign_in_wear_our_look(client: Client, db: None, page: str) -> None:
    shown = client.get(page).content.decode()
    assert "css/base.css" in shown
    assert "<script>" not in shown
    assert " style=" not in shown


def test_who_is_anonymous_has_no_account_page(client: Client, db: None) -> None:
    assert client.get("/account/")["Location"] == f"{LOGIN}?next=/account/"
