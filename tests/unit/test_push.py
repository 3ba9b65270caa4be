"""HTTP push without a network: who is let in, what is answered when, and that a platform may repeat everything."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import structlog

from edge.drivers import push
from edge.drivers.platforms import Platform, Push, doors
from edge.drivers.push import BODY_MOST, PushServer
from edge.hearing import Hearing
from edge.installed import Installed
from edge.profile import Field, Head, Message, Profile
from edge.reading import Reading
from rules.declared import Refused
from rules.district import Device, Pushed
from streetwarden.fast.clock import VirtualClock
from tests.readings import block_of
from wire.clock import NANOSECONDS, from_iso
from wire.counted import Counted

NOW = from_iso("2026-06-18T03:12:45Z")
HEAD = Head("cover", "manhole_cover", "M", "X", "http://example.org", "json", 86400.0)
PROFILE = Profile(HEAD, field=(Field("tilt", "deg", "payload.tilt"),), message=Message("at", "s", "deviceId"))
BEARER, QUERY, TOKEN = "b" * 40, "q+/=" * 10, "onenet-token"


def place(platform: str, device: str, number: int = 0, profile: Profile = PROFILE) -> Installed:
    wire = Pushed(platform, device)
    of = Device(f"cover-{number}", "manhole_cover", profile.id, "gw", "s", "a", "0", 0.0, 0.0, wire)
    return Installed(of, profile, np.arange(number, number + 1, dtype="i4"))


def said(device: str = "A", seconds_ago: int = 5, tilt: object = 1.5) -> dict[str, object]:
    return {"deviceId": device, "at": NOW // NANOSECONDS - seconds_ago, "payload": {"tilt": tilt}}


def signature(message: str, nonce: str = "abcdefgh", token: str = TOKEN) -> str:
    return base64.b64encode(hashlib.md5((token + nonce + message).encode()).digest()).decode()


def signed(message: str, **changed: str) -> dict[str, Any]:
    """A message as OneNET sends it: a JSON text within JSON."""
    return {"msg": message, "nonce": "abcdefgh", "signature": signature(message), "time": 1, "id": "1"} | changed


class Centre:
    """A push server without sockets, and the agent's part: what it takes out of the intake it makes safe."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, intake: int = 10) -> None:
        (folder / "bearer").write_text(f"{BEARER}\n")
        (folder / "onenet").write_text(TOKEN)
        monkeypatch.setenv("CTWING_TOKEN", QUERY)
        platforms = {
            "plain": Platform("bearer", secret_file="bearer"),
            "ctwing": Platform("query", secret_env="CTWING_TOKEN"),
            "onenet": Platform("signature", secret_file="onenet"),
        }
        config = Push("127.0.0.1", 0, platforms).below(folder)
        self.counted = Counted()
        self.clock = VirtualClock.at(NOW)
        self.intake: asyncio.Queue[Reading] = asyncio.Queue(intake)
        self.hearing = Hearing(self.clock, self.counted)
        places = [place("plain", "A"), place("plain", "B", 1), place("ctwing", "A", 2), place("onenet", "A", 3)]
        server = PushServer(config, places, self.intake, self.hearing, self.clock, self.counted)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(server.app, raise_app_exceptions=False), base_url="http://push"
        )
        self.stored: list[tuple[str, float]] = []

    async def post(self, message: object, path: str = "/push/plain", **given: Any) -> int:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        headers = {"authorization": f"Bearer {BEARER}"} | given.pop("headers", {})
        self.answer = await self.client.post(path, content=content, headers=headers, **given)
        return self.answer.status_code

    async def stores(self) -> None:
        """Make everything safe that comes, until cancelled."""
        while True:
            self.store(await self.intake.get())

    def store(self, reading: Reading) -> None:
        self.stored += [(reading.place.device.id, value) for value in block_of(reading).value.tolist()]
        if reading.settle is not None:
            reading.settle()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Centre], Awaitable[None]]], Centre]:
    def run(scenario: Callable[[Centre], Awaitable[None]]) -> Centre:
        structlog.reset_defaults()
        centre = Centre(tmp_path, monkeypatch)

        async def main() -> None:
            async with centre.client:
                storing = asyncio.create_task(centre.stores())
                await scenario(centre)
                storing.cancel()
                await asyncio.wait([storing])

        asyncio.run(main())
        return centre

    return run


Run = Callable[[Callable[[Centre], Awaitable[None]]], Centre]


def test_a_message_and_a_list_of_them_are_taken_and_repeats_are_not_taken_again(run: Run) -> None:
    async def scenario(centre: Centre) -> None:
        assert await centre.post(said()) == 200
        assert await centre.post(said()) == 200
        assert await centre.post([said("B", tilt=2.5), said("A"), said("A", seconds_ago=4, tilt=3.5)]) == 200

    centre = run(scenario)
    assert centre.stored == [("cover-0", 1.5), ("cover-1", 2.5), ("cover-0", 3.5)]
    assert centre.counted.snapshot() == {"edge_repeated_messages_total": 2}


def test_the_answer_comes_only_when_it_is_safe_and_a_repeat_waits_behind_its_first_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "ANSWER_S", 0.05)
    centre = Centre(tmp_path, monkeypatch)

    async def scenario() -> None:
        async with centre.client:
            assert await centre.post(said()) == 503  # nobody makes it safe
            assert centre.answer.headers["retry-after"] == str(push.RETRY_AFTER_S)
            assert await centre.post(said()) == 503
            assert centre.intake.qsize() == 2
            while centre.intake.qsize():
                centre.store(centre.intake.get_nowait())
            storing = asyncio.create_task(centre.stores())
            assert await centre.post(said()) == 200
            storing.cancel()
            await asyncio.wait([storing])

    asyncio.run(scenario())
    assert centre.stored == [("cover-0", 1.5)]
    assert centre.counted["edge_deferred_pushes_total"] == 2


def test_a_full_intake_holds_messages_back_and_loses_none_whose_platform_went_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "ANSWER_S", 0.05)
    monkeypatch.setattr(push, "WAITING_MOST", 1)
    centre = Centre(tmp_path, monkeypatch, intake=3)
    message = [said(seconds_ago=number, tilt=number) for number in range(20, 12, -1)]  # more than there is room for

    async def scenario() -> None:
        async with centre.client:
            assert await centre.post(message) == 503
            assert centre.answer.text == "it is not safe yet"
            assert await centre.post(said()) == 503
            assert centre.answer.text == "there is no room now"
            storing = asyncio.create_task(centre.stores())
            while len(centre.stored) < len(message):  # noqa: ASYNC110 - looks from outside
                await asyncio.sleep(0.001)
            assert await centre.post(message) == 200
            assert await centre.post(said()) == 200
            storing.cancel()
            await asyncio.wait([storing])

    asyncio.run(scenario())
    assert centre.stored == [*(("cover-0", float(tilt)) for tilt in range(20, 12, -1)), ("cover-0", 1.5)]
    assert centre.counted["edge_deferred_pushes_total"] == 2


def test_messages_come_into_a_full_intake_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the last reading of one could be safe, and answered for, before those of another that it repeats."""
    centre = Centre(tmp_path, monkeypatch, intake=1)
    messages = [[said(device, seconds_ago=number) for number in range(20, 14, -1)] for device in "AB"]

    async def scenario() -> None:
        async with centre.client, asyncio.TaskGroup() as tasks:
            for message in messages:
                tasks.create_task(centre.post(message))
            while not centre.intake.full():  # noqa: ASYNC110 - looks from outside
                await asyncio.sleep(0)
            while len(centre.stored) < 12:
                centre.store(await centre.intake.get())

    asyncio.run(scenario())
    assert [device for device, _ in centre.stored] in (
        ["cover-0"] * 6 + ["cover-1"] * 6,
        ["cover-1"] * 6 + ["cover-0"] * 6,
    )


def test_what_nobody_declared_or_can_read_is_counted_and_does_not_come_again(run: Run) -> None:
    async def scenario(centre: Centre) -> None:
        assert await centre.post(said("stranger")) == 200
        assert await centre.post([said("stranger"), said("A", tilt="steep"), said("B")]) == 200

    centre = run(scenario)
    assert centre.stored == [("cover-1", 1.5)]
    assert centre.counted.snapshot() == {"edge_malformed_messages_total": 1, "edge_unknown_device_messages_total": 2}


def test_a_clock_fault_is_marked_and_kept(run: Run) -> None:
    async def scenario(centre: Centre) -> None:
        assert await centre.post(said(seconds_ago=-3600)) == 200

    assert run(scenario).counted.snapshot() == {"edge_clock_fault_messages_total": 1}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/push/plain", {"authorization": ""}, 401),
        ("/push/plain", {"authorization": f"Basic {BEARER}"}, 401),
        ("/push/plain", {"authorization": f"Bearer {BEARER}x"}, 401),
        ("/push/plain", {"authorization": f"bearer  {BEARER}"}, 200),
        (f"/push/plain?token={BEARER}", {"authorization": ""}, 401),
        ("/push/ctwing", {}, 401),
        ("/push/ctwing?token=", {}, 401),
        ("/push/ctwing?token=%ff%00", {}, 401),
        (f"/push/ctwing?token={QUERY.replace('+', '%2B')}", {}, 200),
        ("/push/nobody", {}, 404),
        ("/push/", {}, 404),
        ("/elsewhere", {}, 404),
    ],
)
def test_only_who_shows_the_secret_is_let_in(path: str, headers: dict[str, str], status: int, run: Run) -> None:
    async def scenario(centre: Centre) -> None:
        assert await centre.post(said(), path, headers=headers) == status

    centre = run(scenario)
    assert centre.counted["edge_unauthorised_pushes_total"] == (status == 401)
    assert len(centre.stored) == (status == 200)


@pytest.mark.parametrize(
    "body",
    [
        signed(json.dumps(said())),
        # As older instances send it: under another name, and an object that is signed as it stands there.
        b'{"msg":%s,"msg_signature":"%s","nonce":"abcdefgh"}'
        % ((text := json.dumps(said(), indent=1)).encode(), signature(text).encode()),
    ],
)
def test_onenet_signs_each_message(body: object, run: Run) -> None:
    async def scenario(centre: Centre) -> None:
        assert await centre.post(body, "/push/onenet") == 200

    assert run(scenario).stored == [("cover-3", 1.5)]


def test_the_signature_is_the_md5_of_token_nonce_and_message_in_base64() -> None:
    """Worked out elsewhere: printf tokenabcdefghhello | openssl md5 -binary | base64."""
    assert signature("hello", token="token") == "hu6ZHKxb5QpNYBCkLFCrHQ=="


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (signed(json.dumps(said()), signature=signature("another")), 401),
        (signed(json.dumps(said()), signature=""), 401),
        (signed(json.dumps(said()), nonce="abcdefgi"), 401),
        (said(), 400),
        ({"msg": 5, "nonce": 5, "signature": ""}, 400),
        (b'{"msg":"\\ud800","nonce":"abcdefgh","signature":""}', 400),
        (b"{", 400),
    ],
)
def test_what_onenet_did_not_sign_is_not_read(body: object, status: int, run: Run) -> None:
    async def scenario(centre: Centre) -> None:
        assert await centre.post(body, "/push/onenet") == status

    assert run(scenario).stored == []


def test_the_question_that_verifies_the_address_is_answered_to_onenet_alone(run: Run) -> None:
    async def scenario(centre: Centre) -> None:
        asked = {"msg": "random&text", "nonce": "abcdefgh", "signature": signature("random&text")}
        answer = await centre.client.get("/push/onenet", params=asked)
        assert (answer.status_code, answer.text) == (200, "random&text")
        # Some send the `+` of base64 as it is, which an address reads as a space.
        message = next(str(n) for n in range(1000) if "+" in signature(str(n)))
        address = f"/push/onenet?msg={message}&nonce=abcdefgh&signature={signature(message)}"
        assert (await centre.client.get(address)).text == message
        assert (await centre.client.get("/push/onenet", params=asked | {"msg": "other"})).status_code == 401
        assert (await centre.client.get("/push/onenet")).status_code == 401
        assert (await centre.client.get("/push/plain", params=asked)).status_code == 405
        assert (await centre.client.get("/push/nobody", params=asked)).status_code == 404
        assert (await centre.client.put("/push/plain")).status_code == 405

    run(scenario)


def test_a_body_is_bounded_whatever_it_says_of_its_length(run: Run) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65536

    async def scenario(centre: Centre) -> None:
        assert await centre.post(json.dumps(said()).encode() + b" " * BODY_MOST) == 413
        headers = {"authorization": f"Bearer {BEARER}"}
        assert (await centre.client.post("/push/plain", content=endless(), headers=headers)).status_code == 413
        assert await centre.post(said()) == 200

    assert run(scenario).counted["edge_oversized_pushes_total"] == 2


def test_a_body_is_waited_for_within_bounds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "BODY_S", 0.05)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def scenario(centre: Centre) -> None:
        headers = {"authorization": f"Bearer {BEARER}"}
        assert (await centre.client.post("/push/plain", content=stuck(), headers=headers)).status_code == 408

    run(scenario)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"deviceId":' + b"9" * 5000 + b"}"])
def test_a_body_that_is_no_json_is_refused(body: bytes, run: Run) -> None:
    async def scenario(centre: Centre) -> None:
        assert await centre.post(body) in (200, 400)
        assert await centre.post(said()) == 200

    centre = run(scenario)
    assert centre.stored == [("cover-0", 1.5)]
    assert centre.counted["edge_malformed_messages_total"] + centre.counted["edge_unknown_device_messages_total"] == 1


def test_a_fault_of_ours_is_answered_counted_and_passes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(centre: Centre) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(centre.hearing, "readings", lambda *_: 1 / 0)
            assert await centre.post(said()) == 500
        assert await centre.post(said()) == 200

    assert run(scenario).counted["edge_failed_pushes_total"] == 1


def test_secrets_stand_elsewhere_and_a_wrong_configuration_says_what_would_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    (tmp_path / "empty").write_text(" \n")

    def refuses(platform: Platform, why: str, *places: Installed) -> None:
        with pytest.raises(Refused, match=why):
            doors(Push("127.0.0.1", 0, {"plain": platform}).below(tmp_path), places)

    refuses(Platform("bearer", secret_env="NOWHERE"), "push.platforms.plain: the environment variable NOWHERE is empty")
    refuses(Platform("bearer", secret_file="nowhere"), "push.platforms.plain: .*nowhere cannot be read")
    refuses(Platform("bearer", secret_file="empty"), "is empty: put the secret")
    monkeypatch.setenv("NOWHERE", "secret")
    good = Platform("bearer", secret_env="NOWHERE")
    refuses(good, "push.platforms.other: is missing, but cover-0 is pushed by it", place("other", "A"))
    refuses(good, r"cover-0: wire.device: is empty", place("plain", ""))
    refuses(good, "cover-1: wire: is the same as of cover-0", place("plain", "A"), place("plain", "A", 1))
    timeless = msgspec.structs.replace(PROFILE, message=Message(device="deviceId"))
    refuses(good, "cover-0: wire: a platform repeats", place("plain", "A", profile=timeless))
    nameless = msgspec.structs.replace(PROFILE, message=Message(time="at"))
    refuses(good, "has no message.device", place("plain", "A", profile=nameless))
    with pytest.raises(ValueError, match="either `secret_file` or `secret_env`"):
        Platform("bearer")
    with pytest.raises(ValueError, match="go together"):
        Push("127.0.0.1", 0, {}, certificate="c.pem")
    for host in ("0.0.0.0", "::", "centre.example", "192.168.1.1"):
        with pytest.raises(ValueError, match="`certificate` and `key` are needed"):
            Push(host, 0, {})
    assert Push("::1", 0, {}).port == Push("localhost", 0, {}).port == 0
