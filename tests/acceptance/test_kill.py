"""``kill -9`` of gateways, cloud and broker at random instants while 600 samples a second flow: nothing is lost twice.

The instruments count their own polls; the test reads every value back from the store through the API. Only a gateway's
own death may cost readings: those of the tick that it had not appended yet.
"""

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from streetwarden.headless import drained, hush, readings
from streetwarden.score import TruthFile, incident_of, read_truth, score
from streetwarden.told import Run, Told
from tests import planted_cloud
from tests.running import SPEED, Running, running, swarm_city
from tests.seeds import seeds
from tests.servers import Server, mosquitto
from wire.clock import NANOSECONDS, from_iso

FLOW_S = 36.0  # wall seconds
KILLS = 6
INTERVAL_S = 1.0  # wall seconds between two polls of a device
TICK_S = 1.0  # wall: what a dying gateway may hold unappended, a tick and its commit on a machine that is shared
UNAPPENDED = 2  # polls of one device within that time
SILENT_S = 18.0  # wall: a death of at most 10 s, the start, and the on-delay that begins anew where it was not saved
TOLD_S = 8.5  # wall: the lid lifts, the on-delay of 60 city seconds, two polls
# An order, the one that the lid has already, or a late notice of a lid that lay still again before the link was back.
TOLD = {"auto", "joined_incident", "cleared_before_arrival"}
GATEWAYS = ("gw-1", "gw-2")
VICTIMS = (*GATEWAYS, "cloud", "broker")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", seeds("1"))
def test_kills_lose_nothing_that_was_appended(seed: int, tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker:
        asyncio.run(_survive(seed, tmp_path, broker))


async def _survive(seed: int, folder: Path, broker: Server) -> None:
    city = swarm_city(
        folder,
        seed,
        per_minute=10.0,
        length_s=FLOW_S * SPEED,
        lasts_s=110.0,
        broker_port=broker.port,
        cloud_module="tests.planted_cloud",
    )
    async with running(city) as up:
        deaths = await _kill_at_random(up, broker, random.Random(seed))
        assert planted_cloud.marks(city.folder) == set(planted_cloud.AFTER_GROUPS), "a planted kill did not strike"
        hushed = time.time_ns()
        await hush(up.assembly)
        balance = await drained(up.centre, city.clock.now() + int(NANOSECONDS * SPEED))
        alerts = await up.centre.items("/api/v1/alerts")
        orders = await up.centre.items("/api/v1/work-orders")
        truth = read_truth(up.assembly.truth)

        assert balance["total"]["in_flight"] == 0, balance
        assert balance["total"]["missing"] == 0, balance
        assert balance["total"]["dropped"] == {}, balance
        lost = 0
        for device, emitted in truth.emitted.items():
            lost += _check_counter(device, emitted["polls"], await readings(up.centre, device), deaths, up)
        _check_orders(up, truth, orders, alerts, deaths, hushed)
        polls = sum(emitted["polls"] for emitted in truth.emitted.values())
        gateway_deaths = sum(len(deaths[victim]) for victim in GATEWAYS)
        sys.stdout.write(
            f"seed {seed}: {polls} polls, {lost} lost to {gateway_deaths} deaths of a gateway, "
            f"{len(alerts)} alerts, {len(orders)} orders\n"
        )


def _check_orders(
    up: Running, truth: TruthFile, orders: list[Any], alerts: list[Any], deaths: dict[str, list[int]], hushed: int
) -> None:
    """One order for each lid, none for anything else; every lid that its gateway could watch throughout was told of."""
    assert {order["hazard"] for order in orders} == {"cover"}, "an outage of ours was taken for one of the street's"
    scored = score(truth, Told(Run("lids", up.city.seed, "real", SPEED, FLOW_S * SPEED), orders, alerts, [], {}))
    assert (scored.orders.duplicates, scored.orders.misfires) == (0, 0), scored.details
    told = {incident.id for order in orders if (incident := incident_of(order, truth)) is not None}
    assert scored.orders.opened == len(told), "two orders of one incident"
    silent = int(SILENT_S * NANOSECONDS)
    for incident in truth.incidents:
        (device,) = incident.devices
        begins = up.city.clock.wall_at(from_iso(incident.onset))
        watched = (begins, begins + int(TOLD_S * NANOSECONDS))
        own = deaths[_gateway_of(device)]
        blind = any(death < watched[1] and watched[0] < death + silent for death in own)
        if not blind and watched[1] < hushed:
            since = [
                (from_iso(alert["since"]), alert["decision"]["code"])
                for alert in alerts
                if alert["device"] == device and alert["decision"]
            ]
            begins, ends = from_iso(incident.onset), from_iso(incident.end or truth.at)
            assert any(begins <= at <= ends and code in TOLD for at, code in since), (device, incident, since)


async def _kill_at_random(up: Running, broker: Server, chance: random.Random) -> dict[str, list[int]]:
    """Kill and restart until the flow has lasted; wall instants (UTC ns) of death and of being up again, by victim."""
    deaths: dict[str, list[int]] = {victim: [] for victim in VICTIMS}
    began = time.monotonic()
    # Each victim at least once, a few twice; the last one has time to come back.
    victims = [*VICTIMS, *chance.choices(VICTIMS, k=KILLS - len(VICTIMS))]
    chance.shuffle(victims)
    instants = sorted(chance.uniform(4.0, FLOW_S - 4.0) for _ in victims)
    restarts = []
    for victim, instant in zip(victims, instants, strict=True):
        await asyncio.sleep(max(0.0, began + instant - time.monotonic()))
        down_s = 0.2 * 50 ** chance.random()  # 0.2 to 10 s, short ones as likely as long ones
        deaths[victim].append(time.time_ns())
        if victim == "broker":
            await asyncio.to_thread(broker.kill)
            restarts.append(asyncio.create_task(_restart(broker, down_s)))
        else:
            up.supervisor.kill(victim, down_s)
    await asyncio.gather(*restarts)
    await asyncio.sleep(max(0.0, began + FLOW_S - time.monotonic()))
    await up.centre.until_ready(20.0)
    return deaths


async def _restart(broker: Server, down_s: float) -> None:
    await asyncio.sleep(down_s)
    await asyncio.to_thread(broker.restart)


def _check_counter(
    device: str, polls: int, read_back: list[list[Any]], deaths: dict[str, list[int]], up: Running
) -> int:
    """Every poll 1 … n is stored once, but for gaps with a death of the device's gateway in them; how many are lost."""
    stored = [(int(value), at_ms) for at_ms, value, quality in read_back if quality == 0]
    values = [value for value, _ in stored]
    assert len(values) == len(set(values)), f"{device}: a reading is stored twice"
    assert values == sorted(values), f"{device}: readings are out of order"
    ends = (polls + 1, read_back[-1][0])
    lost = 0
    for (before, left_ms), (after, right_ms) in zip(stored, [*stored[1:], ends], strict=True):
        if after == before + 1:
            continue
        lost += after - before - 1
        own = [_city_ms(up, death) for death in deaths[_gateway_of(device)]]
        assert after - before - 1 <= UNAPPENDED, f"{device}: polls {before + 1} to {after - 1} are missing"
        unappended_ms = (INTERVAL_S + TICK_S) * SPEED * 1000
        assert any(left_ms <= death <= min(right_ms, left_ms + unappended_ms) for death in own), (
            f"{device}: polls {before + 1} to {after - 1} are missing, and no death of its gateway explains it"
        )
    return lost


def _gateway_of(device: str) -> str:
    """As ``firmware_sim.swarm`` spreads devices over buses, and buses over gateways."""
    return GATEWAYS[(int(device.removeprefix("monitor-")) - 1) % 4 % 2]


def _city_ms(up: Running, wall: int) -> float:
    return up.city.clock.city_at(wall) / 1e6
