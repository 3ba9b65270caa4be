"""A swarm's load on the real cloud over a real Mosquitto, which dies on the way with all it held."""

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from firmware_sim.fleet import Fleet, district_of
from firmware_sim.load import Config, Outcome, run
from firmware_sim.swarm import district_text
from rules.declared import Refused
from streetwarden.centre import Centre
from tests.servers import Server, free_port, mosquitto
from wire.session import Broker

ROOT = Path(__file__).parents[2]
GATEWAYS, DEVICES = 20, 2000
FLOW_S = 6.0


def _cloud(folder: Path, broker: int, fleet: Fleet) -> Server:
    port = free_port()
    (folder / "district.toml").write_text(district_text(district_of(fleet)), encoding="utf-8")
    (folder / "cloud.toml").write_text(
        f'district = "district.toml"\ndata = "data"\nhttp = {{ port = {port} }}\n'
        f'broker = {{ host = "127.0.0.1", port = {broker} }}\n'
    )
    os.environ["PYTHONPATH"] = str(ROOT)
    return Server("cloud", [sys.executable, "-m", "cloud.process", str(folder / "cloud.toml")], port, folder)


def test_every_batch_is_receipted_and_stored_once_though_the_broker_is_killed(tmp_path: Path) -> None:
    fleet = Fleet(gateways=GATEWAYS, manhole_monitors=DEVICES, every="500ms")
    chance = random.Random()

    async def die(broker: Server) -> None:
        await asyncio.sleep(chance.uniform(0.3, 0.6) * FLOW_S)
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        await asyncio.to_thread(broker.start)

    async def scenario(broker: Server, cloud: Server) -> tuple[Outcome, dict[str, Any], list[Any]]:
        config = Config(
            Broker("127.0.0.1", broker.port), fleet, alerts_per_minute=120.0, lasts=f"{FLOW_S:g}s", connections=4
        )
        async with Centre(cloud.url) as centre:
            await centre.until_ready(20.0)
            outcome, _ = await asyncio.gather(run(config), die(broker))
            return outcome, (await centre.get("/api/v1/balance"))["total"], await centre.items("/api/v1/alerts")

    with mosquitto(tmp_path) as broker, _cloud(tmp_path, broker.port, fleet) as cloud:
        outcome, total, alerts = asyncio.run(scenario(broker, cloud))
    sys.stdout.write(f"{outcome}\n")
    assert outcome.balanced, outcome
    assert outcome.connections_lost >= outcome.connections, "the broker's death was not felt"
    assert (total["committed"], total["missing"], total["dropped"]) == (outcome.made["samples"], 0, {})
    assert len(alerts) == (outcome.made["alert_batches"] + 1) // 2
    # Every device counts its readings from 1: each must stand in the store once.
    with duckdb.connect(str(tmp_path / "data" / "samples.duckdb"), read_only=True) as stored:
        rows = stored.execute(
            "SELECT count(*), count(DISTINCT value), max(value) FROM sample JOIN series ON series = number "
            "WHERE metric = 'poll_counter' GROUP BY device"
        ).fetchall()
    assert len(rows) == DEVICES
    assert all(count == different == last for count, different, last in rows), "a reading is lost or doubled"
    assert sum(count for count, _, _ in rows) == outcome.made["sample_batches"] * DEVICES // GATEWAYS


def test_gateways_without_a_device_are_refused() -> None:
    config = Config(Broker("127.0.0.1", 1), Fleet(gateways=4, manhole_monitors=100), connections=1)
    with pytest.raises(Refused, match="only 1 of 4 gateways have a device"):
        asyncio.run(run(config))
