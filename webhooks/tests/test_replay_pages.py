"""Replays in the panel: chosen and counted, started, followed and ended; and what is held, said where it shows."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client

from conftest import Cast
from core.actors import SYSTEM
from core.clock import now
from webhooks.actions import disable_webhook, pause_webhook
from webhooks.models import Delivery, Replay, Webhook
from webhooks.panel.paging import PAGE_SIZE
from webhooks.replay import pause_replay
from webhooks.tests.conftest import make_delivery
from webhooks.tests.pages import at
from webhooks.tests.replays import begin, past, work_off

pytestmark = pytest.mark.once


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.developer)
    return client


def text_of(page: Any) -> str:
    """What stands on the page, without its marks."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.content.decode()).split())


class TestChoosing:
    """The form, the count, the start."""

    def test_the_form_offers_what_failed_of_the_last_day(self, acme: Cast, webhook: Webhook, signed_in: Client) -> None:
        past(acme, webhook, 2)
        page = signed_in.get(at(acme, "replay_start", webhook.pk))
        form = page.context["form"]
        assert not form.is_bound
        assert form["states"].value() == ["failed"]
        assert now() - timedelta(hours=25) < form["since"].initial < now() - timedelta(hours=23)
        assert page.context["count"] is None
        assert "Start the replay" not in text_of(page)

    def test_it_is_counted_then_started_as_counted(self, acme: Cast, webhook: Webhook, signed_in: Client) -> None:
        rows = past(acme, webhook, 5)
        query = {"states": "failed", "events": "inboundMessage", "conversation": rows[0].conversation_id, "rate": 20}
        page = signed_in.get(f"{at(acme, 'replay_start', webhook.pk)}?{urlencode(query)}")
        assert page.context["count"] == 2
        assert "2 events to send again" in text_of(page)
        assert not Replay.objects.exists()
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.content.decode()))
        carried_on = {name: value for name, value in hidden.items() if name != "csrfmiddlewaretoken"}
        assert carried_on == {name: str(value) for name, value in query.items()}
        answer = signed_in.post(at(acme, "replay_start", webhook.pk), carried_on)
        replay = Replay.objects.get()
        assert answer["Location"] == at(acme, "replay", webhook.pk, replay.pk)
        assert (replay.states, replay.events, replay.rate, replay.total) == (["failed"], ["inboundMessage"], 20, 2)
        assert (replay.conversation_id, replay.actor_kind) == (rows[0].conversation_id, "user")

    def test_nothing_to_send_offers_no_start(self, acme: Cast, webhook: Webhook, signed_in: Client) -> None:
        page = signed_in.get(f"{at(acme, 'replay_start', webhook.pk)}?rate=1")
        assert "Nothing to send again" in text_of(page)
        assert "Start the replay" not in text_of(page)

    def test_times_are_of_the_organisations_zone(self, acme: Cast, webhook: Webhook, signed_in: Client) -> None:
        acme.organisation.time_zone = "Asia/Tokyo"
        acme.organisation.save()
        past(acme, webhook, 1)
        signed_in.post(at(acme, "replay_start", webhook.pk), {"rate": 1, "since": "2026-01-31T09:30"})
        since = Replay.objects.get().since
        assert since is not None
        assert since.isoformat() == "2026-01-31T00:30:00+00:00"

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"rate": 0}, "rate"),
            ({"rate": 1001}, "rate"),
            ({}, "rate"),
            ({"rate": 5, "states": "held"}, "states"),
            ({"rate": 5, "events": "nonsense"}, "events"),
            ({"rate": 5, "since": "2999-01-01T00:00"}, "since"),
            ({"rate": 5, "since": "0001-01-01T00:00"}, "since"),
            ({"rate": 5, "since": "2026-01-02T00:00", "until": "2026-01-01T00:00"}, "since"),
            ({"rate": 5, "conversation": "99999999999999999999"}, "conversation"),
        ],
    )
    def test_bad_input_is_told_beside_its_field(
        self, acme: Cast, webhook: Webhook, signed_in: Client, values: dict[str, Any], field: str
    ) -> None:
        url = at(acme, "replay_start", webhook.pk)
        pages = [(signed_in.post(url, values), 400)]
        if values:
            pages.append((signed_in.get(f"{url}?{urlencode(values)}"), 200))
        for page, status in pages:
            assert page.status_code == status
            assert list(page.context["form"].errors) == [field]
            assert page.context["count"] is None
        assert not Replay.objects.exists()

    def test_while_one_is_unfinished_none_starts(self, acme: Cast, webhook: Webhook, signed_in: Client) -> None:
        past(acme, webhook, 1)
        first = begin(webhook)
        page = signed_in.get(at(acme, "replay_start", webhook.pk))
        assert at(acme, "replay", webhook.pk, first.pk) in page.content.decode()
        page = signed_in.post(at(acme, "replay_start", webhook.pk), {"rate": 1}, follow=True)
        assert f"Replay #{first.pk} of the webhook is not finished" in text_of(page)
        assert Replay.objects.count() == 1

    @pytest.mark.parametrize(
        ("log", "replay"),
        [
            ("", ""),
            ("state=failed", "states=failed&rate=100"),
            ("state=held", ""),
            ("event=payment&conversation=7", "events=payment&conversation=7&rate=100"),
            ("since=2026-01-31&until=2026-01-31", "since=2026-01-31T00%3A00&until=2026-02-01T00%3A00&rate=100"),
            ("status=500", ""),
            ("state=nonsense", ""),
        ],
    )
    def test_the_logs_filters_are_carried_over(
        self, acme: Cast, webhook: Webhook, signed_in: Client, log: str, replay: str
    ) -> None:
        past(acme, webhook, 1, last_status_code=500)
        page = signed_in.get(f"{at(acme, 'deliveries', webhook.pk)}?{log}")
        assert page.context["replay"] == replay
        link = at(acme, "replay_start", webhook.pk) + (f"?{replay}" if replay else "")
        assert (f'href="{link.replace("&", "&amp;")}"' in page.content.decode()) == bool(page.context["page"].rows)
        assert signed_in.get(link).status_code == 200


class TestFollowing:
    """The pages of replays that were started."""

    def test_a_running_one_looks_again_by_itself_with_and_without_scripts(
        self, acme: Cast, webhook: Webhook, signed_in: Client
    ) -> None:
        past(acme, webhook, 9)
        replay = work_off(begin(webhook, rate=10), steps=2)
        url = at(acme, "replay", webhook.pk, replay.pk)
        page = signed_in.get(url)
        assert "4 of 9 deliveries made." in text_of(page)
        assert 'max="9" value="4"' in page.content.decode()
        assert 'http-equiv="refresh"' in page.content.decode()
        assert 'hx-trigger="every 1s"' in page.content.decode()
        work_off(replay)
        page = signed_in.get(url)
        assert "9 of 9 deliveries made." in text_of(page)
        assert "refresh" not in page.content.decode()
        assert "hx-trigger" not in page.content.decode()
        assert "Cancel the replay" not in text_of(page)

    def test_it_is_paused_resumed_and_cancelled(self, acme: Cast, webhook: Webhook, signed_in: Client) -> None:
        past(acme, webhook, 3)
        replay = begin(webhook)
        url = at(acme, "replay", webhook.pk, replay.pk)
        for verb, state, told in (
            ("pause", "paused", "The replay is paused."),
            ("resume", "running", "The replay goes on."),
            ("cancel", "cancelled", "The replay is cancelled."),
            ("pause", "cancelled", "The replay is cancelled."),
        ):
            page = signed_in.post(f"{url}{verb}/", follow=True)
            assert page.redirect_chain == [(url, 302)]
            assert told in text_of(page)
            replay.refresh_from_db()
            assert replay.state == state

    def test_it_says_what_it_waits_for(self, acme: Cast, webhook: Webhook, signed_in: Client) -> None:
        past(acme, webhook, 3)
        replay = begin(webhook)
        url = at(acme, "replay", webhook.pk, replay.pk)
        pause_webhook(webhook=webhook, actor=SYSTEM)
        assert "The webhook is paused: the replay goes on when it is resumed." in text_of(signed_in.get(url))
        disable_webhook(webhook=webhook, actor=SYSTEM)
        assert "The webhook is disabled: the replay goes on when it is enabled." in text_of(signed_in.get(url))
        Webhook.objects.update(state="active", breaker_until=now() + timedelta(minutes=1))
        assert "The endpoint fails: the replay goes on when it is tried again" in text_of(signed_in.get(url))
        pause_replay(replay=replay, actor=SYSTEM)
        assert "The endpoint fails" not in text_of(signed_in.get(url))

    def test_all_replays_are_listed_in_pages(
        self, acme: Cast, webhook: Webhook, signed_in: Client, django_assert_max_num_queries: Any
    ) -> None:
        url = at(acme, "replays", webhook.pk)
        assert "Nothing was replayed yet" in text_of(signed_in.get(url))
        made = [begin(webhook, states=["failed"]).pk for _ in range(PAGE_SIZE + 3)]
        with django_assert_max_num_queries(12):
            page = signed_in.get(url)
        shown = [replay.pk for replay in page.context["page"].rows]
        page = signed_in.get(f"{url}?before={page.context['page'].older}")
        assert [*shown, *(replay.pk for replay in page.context["page"].rows)] == made[::-1]
        assert page.context["page"].older == ""

    def test_another_webhooks_replay_is_not_there(
        self, acme: Cast, webhook: Webhook, globex: Cast, signed_in: Client
    ) -> None:
        past(acme, webhook, 1)
        replay = begin(webhook)
        other = Webhook.objects.create(organisation=acme.organisation, name="other", callback_url="https://e.example/")
        for page in ("replay", "replay_pause"):
            assert signed_in.post(at(acme, page, other.pk, replay.pk)).status_code in (404, 405)
        assert signed_in.get(at(acme, "replay", other.pk, replay.pk)).status_code == 404
        replay.refresh_from_db()
        assert replay.state == "running"


class TestHeld:
    """What is held, and what resuming sends."""

    @pytest.mark.parametrize(
        ("stop", "button"), [(pause_webhook, "Resume and send 2"), (disable_webhook, "Enable and send 2")]
    )
    def test_it_says_how_many_are_held_and_what_starting_sends(
        self, acme: Cast, webhook: Webhook, signed_in: Client, stop: Any, button: str
    ) -> None:
        for _ in range(2):
            make_delivery(acme, webhook)
        stop(webhook=webhook, actor=SYSTEM)
        for name in ("deliveries", "webhook"):
            text = text_of(signed_in.get(at(acme, name, webhook.pk)))
            assert "2 deliveries are held." in text
            assert button in text
        verb = "webhook_resume" if stop is pause_webhook else "webhook_enable"
        signed_in.post(at(acme, verb, webhook.pk))
        assert not Delivery.objects.filter(state="held").exists()
        assert "deliveries are held" not in text_of(signed_in.get(at(acme, "deliveries", webhook.pk)))
