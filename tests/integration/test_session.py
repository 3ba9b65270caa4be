"""The MQTT session against real brokers, which are killed and restarted under it."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.servers import Server, iotcore_broker, mosquitto
from wire import connection
from wire.counted import Counted
from wire.session import INTAKE_WINDOWS, Broker, Delivery, NotConnected, PublishRefused, Session

LIMIT_S = 20.0


@pytest.fixture(params=["mosquitto", "iotcore"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    start = mosquitto if request.param == "mosquitto" else iotcore_broker
    with start(tmp_path) as running:
        yield running


def at(server: Server) -> Broker:
    return Broker("127.0.0.1", server.port)


async def receive(session: Session, count: int) -> list[Delivery]:
    async with asyncio.timeout(LIMIT_S):
        return [await session.receive() for _ in range(count)]


async def connected(session: Session, after: int = 0) -> int:
    async with asyncio.timeout(LIMIT_S):
        return await session.wait_connected(after)


async def disconnected(session: Session) -> None:
    async with asyncio.timeout(LIMIT_S), session._changed:
        await session._changed.wait_for(lambda: not session.connected)


def test_a_message_arrives_with_its_content_type_and_in_order(server: Server) -> None:
    async def scenario() -> None:
        async with Session(at(server), "reader", ["a/#"]) as reader, Session(at(server), "writer", []) as writer:
            await connected(reader)
            await connected(writer)
            for number in range(50):
                await writer.publish("a/b", b"%d" % number, content_type="text/x-number")
            got = await receive(reader, 50)
            assert [delivery.payload for delivery in got] == [b"%d" % number for number in range(50)]
            assert {(d.topic, d.content_type, d.qos, d.retained) for d in got} == {("a/b", "text/x-number", 1, False)}
            for delivery in got:
                reader.acknowledge(delivery)

    asyncio.run(scenario())


def test_a_retained_message_waits_for_its_reader(server: Server) -> None:
    async def scenario() -> None:
        async with Session(at(server), "writer", []) as writer:
            await connected(writer)
            await writer.publish("a/state", b"kept", retain=True)
        async with Session(at(server), "reader", ["a/state"]) as reader:
            (delivery,) = await receive(reader, 1)
            assert (delivery.payload, delivery.retained) == (b"kept", True)

    asyncio.run(scenario())


def test_what_was_not_acknowledged_comes_again_to_the_next_session(server: Server) -> None:
    async def scenario() -> None:
        async with Session(at(server), "writer", []) as writer:
            await connected(writer)
            async with Session(at(server), "reader", ["a"]) as reader:
                await connected(reader)
                for payload in (b"one", b"two", b"three"):
                    await writer.publish("a", payload)
                first = await receive(reader, 3)
                reader.acknowledge(first[0])
                await asyncio.sleep(0.2)
            await writer.publish("a", b"four")
            async with Session(at(server), "reader", ["a"]) as reader:
                again = await receive(reader, 3)
                assert [delivery.payload for delivery in again] == [b"two", b"three", b"four"]

    asyncio.run(scenario())


def test_a_megabyte_passes(server: Server) -> None:
    payload = bytes(range(256)) * 4096

    async def scenario() -> None:
        async with Session(at(server), "reader", ["a"]) as reader, Session(at(server), "writer", []) as writer:
            await connected(reader)
            await connected(writer)
            async with asyncio.timeout(LIMIT_S):
                await writer.publish("a", payload)
            (delivery,) = await receive(reader, 1)
            assert delivery.payload == payload

    asyncio.run(scenario())


def test_a_killed_broker_is_found_again_with_the_subscriptions(server: Server) -> None:
    async def scenario() -> None:
        async with Session(at(server), "reader", ["a"]) as reader, Session(at(server), "writer", []) as writer:
            before = await connected(reader), await connected(writer)
            await asyncio.to_thread(server.kill)
            await disconnected(writer)
            await disconnected(reader)
            with pytest.raises(NotConnected):
                await writer.publish("a", b"lost")
            await asyncio.to_thread(server.start)
            after = await connected(reader, before[0]), await connected(writer, before[1])
            assert after > before
            await writer.publish("a", b"found")
            assert [delivery.payload for delivery in await receive(reader, 1)] == [b"found"]

    asyncio.run(scenario())


def test_publishes_on_their_way_raise_when_the_broker_dies(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with Session(at(server), "writer", []) as writer:
            await connected(writer)
            server.process.send_signal(19)  # type: ignore[union-attr]  # SIGSTOP: it takes bytes and answers nothing
            sending = [asyncio.create_task(writer.publish("a", b"%d" % number)) for number in range(150)]
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.kill)
            async with asyncio.timeout(LIMIT_S):
                results = await asyncio.gather(*sending, return_exceptions=True)
            assert {type(result) for result in results} == {NotConnected}

    with mosquitto(tmp_path) as server:
        asyncio.run(scenario(server))


def test_an_acknowledgement_of_a_past_connection_is_dropped(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with Session(at(server), "reader", ["a"]) as reader, Session(at(server), "writer", []) as writer:
            before = await connected(reader)
            await connected(writer)
            await writer.publish("a", b"old")
            (old,) = await receive(reader, 1)
            await asyncio.to_thread(server.restart)
            await connected(reader, before)
            generation = await connected(writer, 1)
            await writer.publish("a", b"new")
            (new,) = await receive(reader, 1)
            assert new.message_id == old.message_id  # the restarted broker counts from 1 again: the trap is real
            reader.acknowledge(old)
            await asyncio.sleep(0.2)
        assert generation > 1
        async with Session(at(server), "reader", ["a"]) as reader:
            assert [delivery.payload for delivery in await receive(reader, 1)] == [b"new"]

    with mosquitto(tmp_path) as server:
        asyncio.run(scenario(server))


def test_copies_still_waiting_here_are_dropped_when_the_broker_repeats_them(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with Session(at(server), "reader", ["a"]) as reader, Session(at(server), "writer", []) as writer:
            before = await connected(reader)
            await connected(writer)
            for number in range(5):
                await writer.publish("a", b"%d" % number)
            await asyncio.sleep(0.2)  # they wait in the intake, unread
            await asyncio.to_thread(server.stop)  # saves the session
            await asyncio.to_thread(server.start)
            generation = await connected(reader, before)
            got = await receive(reader, 5)
            assert [delivery.payload for delivery in got] == [b"%d" % number for number in range(5)]
            assert {delivery.generation for delivery in got} == {generation}
            await asyncio.sleep(0.2)
            assert reader.receive_waiting(100) == []

    with mosquitto(tmp_path, persistent=True) as server:
        asyncio.run(scenario(server))


def test_the_window_bounds_what_waits_unacknowledged(server: Server) -> None:
    async def scenario() -> None:
        async with (
            Session(at(server), "reader", ["a"], receive_maximum=8) as reader,
            Session(at(server), "writer", []) as writer,
        ):
            await connected(reader)
            await connected(writer)
            await asyncio.gather(*(writer.publish("a", b"%d" % number) for number in range(40)))
            await asyncio.sleep(0.3)
            waiting = reader.receive_waiting(100)
            if server.name == "mosquitto":  # iotcore keeps to its own window of 100
                assert len(waiting) == 8
            seen = list(waiting)
            while len(seen) < 40:
                for delivery in waiting:
                    reader.acknowledge(delivery)
                waiting = await receive(reader, 1)
                seen += waiting
            assert sorted(int(delivery.payload) for delivery in seen) == list(range(40))

    asyncio.run(scenario())


WINDOW, FLOOD = 4, 300
INTAKE = INTAKE_WINDOWS * WINDOW


class Slow:
    """A reader too slow for Mosquitto, which sends its whole queue while acknowledgements trickle in."""

    def __init__(self, session: Session) -> None:
        self.seen: dict[str, None] = {}  # topics in the order of their first arrival
        self.most = 0  # waiting at once
        self._session = session

    async def until(self, topic: str) -> None:
        while topic not in self.seen:
            group = [await self._session.receive(), *self._session.receive_waiting(WINDOW - 1)]
            self.most = max(self.most, len(group) + len(self._session._intake))
            await asyncio.sleep(0.005)
            for delivery in group:
                self._session.acknowledge(delivery)
                self.seen[delivery.topic] = None


@pytest.mark.parametrize("retain", [False, True])
def test_what_overran_the_intake_comes_again_and_each_connection_brings_some_forward(
    tmp_path: Path, retain: bool
) -> None:
    async def scenario(server: Server) -> None:
        counted = Counted()
        if not retain:
            async with Session(at(server), "reader", ["a/#"]) as reader:
                await connected(reader)  # from here on the broker queues for it
        async with Session(at(server), "writer", []) as writer, asyncio.timeout(LIMIT_S):
            await connected(writer)
            await asyncio.gather(*(writer.publish(f"a/{number}", b"x", retain=retain) for number in range(FLOOD)))
            async with Session(at(server), "reader", ["a/#"], receive_maximum=WINDOW, counted=counted) as reader:
                slow = Slow(reader)
                for number in range(FLOOD):
                    await slow.until(f"a/{number}")
                assert retain or list(slow.seen) == [f"a/{number}" for number in range(FLOOD)]
                await writer.publish("a/last", b"")  # behind all that comes again
                await slow.until("a/last")
        assert slow.most <= INTAKE
        assert 0 < counted["mqtt_connections_overrun_total"] <= 2 * FLOOD / INTAKE

    with mosquitto(tmp_path) as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize(("qos", "clean"), [(0, False), (1, True)])
def test_a_flood_that_nobody_repeats_is_bounded_and_ends_no_connection(tmp_path: Path, qos: int, clean: bool) -> None:
    async def scenario(server: Server) -> None:
        counted = Counted()
        async with (
            Session(at(server), "writer", []) as writer,
            Session(at(server), "reader", ["a/#"], clean=clean, receive_maximum=WINDOW, counted=counted) as reader,
            asyncio.timeout(LIMIT_S),
        ):
            await connected(reader)
            await connected(writer)
            for number in range(FLOOD):
                writer._connection._client.publish(f"a/{number}", qos=qos)  # type: ignore[union-attr]
            await writer.publish("b", b"")  # answered: the broker has the flood
            slow = Slow(reader)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await slow.until("never")
            await writer.publish("a/last", b"")
            await slow.until("a/last")
            assert slow.most <= INTAKE
            assert counted["mqtt_overflow_messages_total"] == FLOOD + 1 - len(slow.seen) > 0
            assert reader.generation == 1

    with mosquitto(tmp_path) as server:
        asyncio.run(scenario(server))


def test_the_will_is_told_when_the_process_dies_and_not_after_a_goodbye(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with Session(at(server), "watcher", ["will/#"]) as watcher:
            await connected(watcher)
            async with Session(at(server), "polite", [], will=("will/polite", b"gone")) as polite:
                await connected(polite)
            async with Session(at(server), "lost", [], will=("will/lost", b"gone")) as lost:
                await connected(lost)
                tcp = lost._connection._client.socket()  # type: ignore[union-attr]
                tcp.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
                (will,) = await receive(watcher, 1)
                assert will.topic == "will/lost"

    with mosquitto(tmp_path) as server:
        asyncio.run(scenario(server))


def test_a_wrong_password_is_not_a_connection_and_a_right_one_is(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        counted = Counted()
        wrong = Broker("127.0.0.1", server.port, "ann", "guess")
        async with Session(wrong, "a", [], counted=counted) as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.7):
                    await session.wait_connected()
        assert counted["mqtt_connections_ended_total"] >= 2
        async with Session(Broker("127.0.0.1", server.port, "ann", "secret"), "a", []) as session:
            await connected(session)

    with mosquitto(tmp_path, users={"ann": "secret"}) as server:
        asyncio.run(scenario(server))


def test_a_message_the_broker_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with Session(Broker("127.0.0.1", server.port, "ann", "secret"), "a", []) as session:
            await connected(session)
            with pytest.raises(PublishRefused, match=r"[Nn]ot authorized"):
                await session.publish("forbidden", b"x")
            await connected(session, session.generation)  # Mosquitto 2.0.11 hangs up after such a refusal
            await session.publish("allowed", b"x")

    server = mosquitto(tmp_path, users={"ann": "secret"})
    (tmp_path / "acl").write_text("user ann\ntopic readwrite allowed\n")
    with (tmp_path / "mosquitto.conf").open("a") as configuration:
        configuration.write(f"acl_file {tmp_path / 'acl'}\n")
    with server:
        asyncio.run(scenario(server))


def test_it_stops_within_a_second_whatever_the_broker_does(tmp_path: Path) -> None:
    async def scenario(server: Server, frozen: bool) -> float:
        async with Session(at(server), "reader", ["a"]) as session:
            if frozen:
                await connected(session)
                server.process.send_signal(19)  # type: ignore[union-attr]  # SIGSTOP
                await asyncio.sleep(0.1)
            else:
                await asyncio.sleep(0.5)
            began = time.monotonic()
        return time.monotonic() - began

    with mosquitto(tmp_path) as server:
        assert asyncio.run(scenario(server, frozen=True)) < 1.0
        server.kill()
        assert asyncio.run(scenario(server, frozen=False)) < 1.0


CONNACK = b"\x20\x03\x00\x00\x00"
GARBAGE = {
    "not MQTT": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an endless length": b"\x20\xff\xff\xff\xff\xff",
    "an empty CONNACK": b"\x20\x00",
    "a property that does not exist": b"\x20\x06\x00\x00\x03\x7f\x00\x00",
    "a PUBLISH cut short": CONNACK + b"\x32\x03\x00\x09a",
    "a PUBACK for nobody": CONNACK + b"\x40\x02\x00\x07\x50\x00",
    "a topic that is not text": CONNACK + b"\x32\x07\x00\x02\xff\xfe\x00\x01\x00\x32",
    "a goodbye": CONNACK + b"\xe0\x01\x8b",
}


@pytest.mark.parametrize("said", GARBAGE.values(), ids=list(GARBAGE))
def test_whatever_a_broker_says_the_session_lives_and_tries_again(said: bytes) -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(100)
        writer.write(said)
        writer.write_eof()
        await reader.read()  # until the client hangs up
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        counted = Counted()
        async with Session(Broker("127.0.0.1", port), "reader", ["a"], counted=counted) as session:
            async with asyncio.timeout(LIMIT_S):
                while counted["mqtt_connections_ended_total"] < 3:  # noqa: ASYNC110 - a counter tells nobody
                    await asyncio.sleep(0.02)
            assert not session.connected
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())
    assert connections >= 3


class Forgetful:
    """A broker of few words: it lives, acknowledges in order, ``after_s`` each, and never the payload ``lost``."""

    def __init__(self, after_s: float = 0.0) -> None:
        self._after_s = after_s

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind = (await reader.readexactly(1))[0] & 0xF0
                packet = await reader.readexactly((await reader.readexactly(1))[0])
                if kind == 0x10:
                    writer.write(CONNACK)
                elif kind == 0x30 and not packet.endswith(b"lost"):
                    await asyncio.sleep(self._after_s)
                    topic = 2 + int.from_bytes(packet[:2], "big")
                    writer.write(b"\x40\x02" + packet[topic : topic + 2])
                elif kind == 0xC0:
                    writer.write(b"\xd0\x00")
        writer.close()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Session]:
        server = await asyncio.start_server(self, "127.0.0.1", 0)
        async with Session(Broker("127.0.0.1", server.sockets[0].getsockname()[1]), "writer", []) as session:
            await connected(session)
            yield session
        server.close()
        await server.wait_closed()


def test_a_lost_acknowledgement_ends_the_connection_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PUBACK_S", 0.2)

    async def scenario() -> None:
        async with Forgetful().serving() as session, asyncio.timeout(LIMIT_S):
            before = session.generation
            losing = asyncio.create_task(session.publish("a", b"lost"), name="losing")
            await session.publish("a", b"kept")
            with pytest.raises(NotConnected, match="no acknowledgement"):
                await losing
            await connected(session, before)
            await session.publish("a", b"again")

    asyncio.run(scenario())


def test_a_slow_broker_is_not_a_silent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PUBACK_S", 0.3)

    async def scenario() -> None:
        async with Forgetful(after_s=0.1).serving() as session, asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(session.publish("a", b"%d" % n) for n in range(8)))
            assert session.generation == 1

    asyncio.run(scenario())
