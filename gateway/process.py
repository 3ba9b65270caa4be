"""The process on the box: ``python -m gateway.process CONFIG.toml``.

Every part is a task of one group. Lost connections and silent devices are daily life and handled where they happen; a
task that ends in an error is a fault of ours: the process stops, says so and exits with 1, and whoever supervises it
(systemd, the demo) starts it again on what the outbox holds.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import uvloop

from edge.agent import Agent
from edge.commands import Commands
from edge.counters import Counters
from edge.decoding import Decoding
from edge.installed import filter_of
from edge.poller import ModbusBus
from edge.reading import Reading
from edge.sources import MqttSource
from edge.watermark import Watermark
from gateway.config import GatewayConfig, declared_of, load_config
from gateway.health import Health, will
from gateway.orders import AT_ONCE, Orders
from gateway.outbox import Outbox
from gateway.timekeeping import synchronised
from gateway.uplink import Uplink
from rules.engine import Engine, OtherState
from wire import logs
from wire.counted import Counted
from wire.refusing import refusing
from wire.session import NotConnected, Session
from wire.topics import command, receipt

INTAKE_READINGS = 4096
GOODBYE_S = 0.3

log = structlog.get_logger(__name__)


async def run(config: GatewayConfig) -> None:
    """Poll, judge, keep and send until SIGTERM or SIGINT; an ``ExceptionGroup`` when a part failed."""
    declared = declared_of(config)
    gateway, clock, counted = config.gateway, config.clock, Counted()
    engine = Engine(declared.table, declared.rules)
    intake: asyncio.Queue[Reading] = asyncio.Queue(INTAKE_READINGS)
    elsewhere = [device for device in declared.district.device if device.gateway != gateway]
    source = MqttSource(declared.places, clock, counted, elsewhere, config.chirpstack_topic, gateway)
    buses = {
        name: ModbusBus(
            name,
            address,
            [place for place in declared.places if getattr(place.device.wire, "bus", None) == name],
            clock,
            counted,
        )
        for name, address in config.buses.items()
    }
    counters = Counters(declared.places, counted)
    commands = Commands(declared.places, buses, config.allow, config.act, clock, counted)
    async with AsyncExitStack() as stack:
        outbox = await stack.enter_async_context(
            Outbox(Path(config.data), declared.table, clock, config.outbox, counted, lambda: synchronised(clock))
        )
        if await _restore(engine, outbox, counted):
            commands.begin(engine.standing())
        if (saved := await outbox.counters()) is not None:
            counters.restore(saved)
        source.remember(await outbox.messages())
        # Entered only once what it feeds runs; a gateway without such devices needs none.
        session = Session(
            config.sensors or config.broker,
            f"{gateway}-sensors",
            source.subscriptions,
            will=source.will,
            counted=counted,
        )
        watermark = Watermark(session, clock) if source.subscriptions else None
        agent = Agent(
            declared.table,
            engine,
            intake,
            outbox.append,
            clock,
            config.tick_s,
            decoding=Decoding(counters),
            keep=filter_of(declared.places),
            counted=counted,
            heard_until=watermark,
            act=commands.follow,
        )
        link = Session(
            config.broker,
            f"{gateway}-uplink",
            [receipt(gateway)],
            will=will(gateway, outbox.boot, clock),
            counted=counted,
        )
        await stack.enter_async_context(link)
        health = Health(
            gateway,
            outbox,
            link,
            clock,
            counted,
            lambda: tuple(device for bus in buses.values() for device in bus.down),
            lambda: {name: bus.cycle_s for name, bus in buses.items() if bus.cycle_s},
        )
        stop = _stop_signal()
        async with asyncio.TaskGroup() as tasks:
            sources = [tasks.create_task(bus.run(intake.put), name=f"bus {name}") for name, bus in buses.items()]
            if config.allow:
                told = await stack.enter_async_context(
                    Session(
                        config.broker,
                        f"{gateway}-orders",
                        [command(gateway)],
                        receive_maximum=AT_ONCE,
                        counted=counted,
                    )
                )
                orders = Orders(gateway, commands, told, clock, counted)
                sources += [
                    tasks.create_task(commands.run(), name="commands"),
                    tasks.create_task(orders.run(), name="orders"),
                ]
            if watermark is not None:
                await stack.enter_async_context(session)
                sources.append(tasks.create_task(source.run(session, intake.put, watermark), name="sensors"))
            if config.push is not None:
                from edge.drivers.push import PushServer  # its server is installed where it is needed

                server = PushServer(config.push, declared.places, intake, source.hearing, clock, counted)
                sources.append(tasks.create_task(server.run(), name="push"))
            judging = tasks.create_task(agent.run(), name="agent")
            sending = [
                tasks.create_task(Uplink(gateway, outbox, link, clock, counted).run(), name="uplink"),
                tasks.create_task(health.run(), name="status"),
            ]
            log.info("gateway runs", gateway=gateway, points=len(declared.table.points), rules=len(declared.rules))
            await stop.wait()
            # From the street to the cloud, so that what was read is kept: the agent ends with one last tick.
            for part in (sources, [judging], sending):
                for task in part:
                    task.cancel()
                await asyncio.wait(part)
        with contextlib.suppress(NotConnected, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await health.tell(online=False)
    log.info("gateway stopped", gateway=gateway)


async def _restore(engine: Engine, outbox: Outbox, counted: Counted) -> bool:
    """Give the engine what it saved last; whether there was anything of use."""
    state = await outbox.engine_state()
    if state is None:
        return False
    try:
        engine.restore(state)
    except OtherState as error:
        counted.add("gateway_engine_fresh_starts_total")
        log.warning("the engine starts fresh", why=str(error))
        return False
    return True


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the process; exits with 2 when the configuration is refused, with 1 when a part failed."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        raise SystemExit("usage: python -m gateway.process CONFIG.toml")
    with refusing():
        config = load_config(Path(given[0]))
    logs.configure()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(config))
    except BaseExceptionGroup as failed:
        log.critical("gateway failed", gateway=config.gateway, exc_info=failed)
        raise SystemExit(1) from failed


if __name__ == "__main__":
    main()
