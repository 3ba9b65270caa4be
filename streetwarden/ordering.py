"""Asks a gateway to do something with one of its devices, as the centre does, and waits for what comes of it."""

import asyncio
import uuid
from pathlib import Path

from rich.console import Console

from cloud.config import load_config
from wire.batch import CONTENT_TYPE, Answer, Order, decode, encode
from wire.clock import NANOSECONDS
from wire.session import NotConnected, Session
from wire.topics import Lane, command, up

console = Console(stderr=True)


async def order(configuration: Path, gateway: str, device: str, name: str, value: float | None, within_s: float) -> int:
    """Order it with the cloud's own account, and show the answer; the exit code: 0 done, 1 not done.

    ``TimeoutError`` when no answer came within so many seconds of the wall; the gateway may carry it out until then.
    """
    config = load_config(configuration)
    until = config.clock.now() + round(within_s * config.clock.speed * NANOSECONDS)
    asked = Order(str(uuid.uuid4()), device, name, value, until)
    answers = up(gateway, Lane.ANSWER)
    async with Session(config.broker, f"order-{asked.id}", [answers], clean=True) as session:
        with console.status(f"{gateway}: {device} {name}{'' if value is None else f' {value:g}'}"):
            answer = await _answered(session, gateway, asked, within_s)
    if answer.shows is None:
        console.print(f"{device}: not done: {answer.why}", style="red", highlight=False)
        return 1
    console.print(f"{device}: done, it shows {answer.shows:g}", style="green", highlight=False)
    return 0


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
