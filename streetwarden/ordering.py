"""Asks a gateway to do something with one of its devices, as the centre does, and waits for what comes of it."""

import asyncio
import uuid
from pathlib import Path

from rich.console import Console

from cloud.config import load_config
from rules.declared import Refused, nearest
from wire.batch import CONTENT_TYPE, Answer, Order, decode, encode
from wire.clock import NANOSECONDS
from wire.session import NotConnected, Session
from wire.topics import Lane, command, up

console = Console(stderr=True)


async def order(configuration: Path, gateway: str, device: str, name: str, value: float | None, within_s: float) -> int:
    """Order it with the cloud's own account, and show the answer; the exit code: 0 done, 1 not done.

    ``Refused`` when the district knows no such gateway, or the gateway no such device.
    """
    config = load_config(configuration)
    district = config.load_district()
    if gateway not in (known := {each.id for each in district.gateway}):
        raise Refused(gateway, f"no such gateway{nearest(gateway, known)}")
    if device not in (known := {each.id for each in district.device if each.gateway == gateway}):
        raise Refused(device, f"no such device of {gateway}{nearest(device, known)}")
    until = config.clock.now() + round(within_s * config.clock.speed * NANOSECONDS)
    asked = Order(str(uuid.uuid4()), device, name, value, until)
    try:
        async with Session(config.broker, f"order-{asked.id}", [up(gateway, Lane.ANSWER)], clean=True) as session:
            with console.status(f"{gateway}: {device} {name}{'' if value is None else f' {value:g}'}"):
                answer = await _answered(session, gateway, asked, within_s)
    except TimeoutError:
        return _show(
            f"{gateway} did not answer within {within_s:g} s: is it running, connected, and its `[allow]` set?"
        )
    if answer.shows is None:
        return _show(f"not done: {answer.why}")
    return _show(f"{device}: done, it shows {answer.shows:g}", done=True)


def _show(text: str, *, done: bool = False) -> int:
    console.print(text, style="green" if done else "red", highlight=False, markup=False)
    return 0 if done else 1


async def _answered(session: Session, gateway: str, asked: Order, within_s: float) -> Answer:
    async with asyncio.timeout(within_s):
        await session.wait_connected()
        while True:
            try:
                await session.publish(command(gateway), encode(asked), content_type=CONTENT_TYPE)
                break
            except NotConnected:
                await session.wait_connected(after=session.generation)
        while True:
            delivery = await session.receive()
            session.acknowledge(delivery)
            answer = decode(delivery.payload, Answer)
            if answer.id == asked.id:
                return answer
