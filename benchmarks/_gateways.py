"""The gateways that ``benchmarks.gateway`` measures: how each is set up for the same load, and what it then sends."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from rules.district import Bus, Device, District, Gateway, Modbus, Site, Text, Unit
from rules.samples import BAD, PointTable
from wire.batch import Batch, Receipt, decode, encode
from wire.session import Delivery, Session
from wire.topics import UP_FROM_ALL, Lane, parse_up, receipt

METRICS = {  # the catalog has five rules for these names
    "poll_counter": "count",
    "tilt_change": "deg",
    "level": "m",
    "ch4": "%LEL",
    "h2s": "mg/m3",
    "temperature": "Cel",
    "humidity": "%RH",
    "voltage": "V",
    "battery": "%",
    "signal": "dB",
}


class Heard:
    """What has arrived: ``polls[device, counter]`` by what register 0 said."""

    def __init__(self, devices: int) -> None:
        self.polls = np.zeros((devices, 0x10000), np.bool_)
        self.samples = 0
        self.more = asyncio.Event()

    def note(self, devices: ArrayLike, counters: ArrayLike, samples: int) -> None:
        self.polls[np.asarray(devices, np.int64), np.asarray(counters, np.int64)] = True
        self.samples += samples
        self.more.set()

    def missing(self, polled: Sequence[int]) -> int:
        """How many of the polls 1 to ``polled[device]`` have not arrived."""
        return sum(count - int(self.polls[place, 1 : count + 1].sum()) for place, count in enumerate(polled))


class Subject(Protocol):
    """A gateway to measure."""

    name: str
    topic: str

    def command(self, folder: Path, ports: Sequence[int], broker: int, interval_s: float) -> list[str]:
        """Write its configuration; the command that starts it."""
        ...

    async def take(self, delivery: Delivery, link: Session, heard: Heard) -> None: ...


class Streetwarden:
    name = "streetwarden"
    topic = UP_FROM_ALL
    _gateway = "gw-bench"

    def __init__(self) -> None:
        self._counters = np.empty(0, np.int64)  # by row of the point table: the device whose counter it is, or -1

    def command(self, folder: Path, ports: Sequence[int], broker: int, interval_s: float) -> list[str]:
        (folder / "profiles").mkdir()
        (folder / "profiles" / "bench.toml").write_bytes(msgspec.toml.encode(_profile()))
        (folder / "district.toml").write_bytes(msgspec.toml.encode(_district(self._gateway, len(ports), interval_s)))
        config = {
            "gateway": self._gateway,
            "district": "district.toml",
            "data": "data",
            "profiles": "profiles",
            "broker": {"host": "127.0.0.1", "port": broker},
            "buses": {f"bus-{place}": {"host": "127.0.0.1", "port": port} for place, port in enumerate(ports)},
        }
        (folder / "gateway.toml").write_bytes(msgspec.toml.encode(config))
        return [sys.executable, "-m", "gateway.process", "gateway.toml"]

    async def take(self, delivery: Delivery, link: Session, heard: Heard) -> None:
        gateway, lane = parse_up(delivery.topic)
        if lane is Lane.POINTS:
            points = decode(delivery.payload, PointTable).points
            own = [int(point.device) if point.metric == "poll_counter" else -1 for point in points]
            self._counters = np.array(own)
        elif lane is not Lane.STATUS:
            batch = decode(delivery.payload, Batch)
            block = batch.block()
            device = self._counters[block.point]
            rows = (device >= 0) & (block.quality < BAD)
            heard.note(device[rows], block.value[rows], len(block))
            await link.publish(receipt(gateway), encode(Receipt((batch.seq,))))


def _profile() -> dict[str, object]:
    head = {"id": "bench", "kind": "manhole_monitor", "maker": "bench", "model": "bench", "manual": "bench"}
    points = [
        {"metric": metric, "unit": unit, "function": 3, "register": place, "type": "u16", "invalid": [0xFFFF]}
        | ({"scale": 0.001, "range": [0.0, 65.0]} if place else {})
        for place, (metric, unit) in enumerate(METRICS.items())
    ]
    return {"profile": {**head, "protocol": "modbus", "interval_s": 1.0}, "point": points}


def _district(gateway: str, devices: int, interval_s: float) -> District:
    ring = ((121.3, 31.1), (121.4, 31.1), (121.4, 31.2), (121.3, 31.1))
    return District(
        id="bench",
        name=Text("bench", "bench"),
        unit=(Unit("unit", Text("unit", "unit"), ("drainage", "covers", "lighting", "gas", "sensing")),),
        site=(Site("road", Text("road", "road"), "road", "all", ring),),
        gateway=(Gateway(gateway, Text("bench", "bench")),),
        bus=tuple(Bus(f"bus-{place}", gateway) for place in range(devices)),
        device=tuple(
            Device(
                id=str(place),
                kind="manhole_monitor",
                profile="bench",
                gateway=gateway,
                site="road",
                asset=f"0102{place:010d}",
                component="0102",
                lon=121.35,
                lat=31.12,
                wire=Modbus(f"bus-{place}", 1),
                interval_s=interval_s,
            )
            for place in range(devices)
        ),
    )


class ThingsBoard:
    """thingsboard-gateway with one range tag a device, so that one request reads it; its data wait in memory.

    At its first start it installs pymodbus into its environment: measure a later one.
    """

    name = "thingsboard-gateway"
    topic = "v1/#"
    _limits = b'{"maxPayloadSize": 65536, "maxInflightMessages": 1000, "rateLimits": {}}'

    def __init__(self, environment: Path) -> None:
        self._program = environment / "bin" / "thingsboard-gateway"

    def command(self, folder: Path, ports: Sequence[int], broker: int, interval_s: float) -> list[str]:
        shipped = next(self._program.parents[1].glob("lib/python*/site-packages/thingsboard_gateway/config"))
        main = json.loads((shipped / "tb_gateway.json").read_text())
        main["thingsboard"] |= {
            "host": "127.0.0.1",
            "port": broker,
            "remoteConfiguration": False,
            "statistics": {"enable": False, "statsSendPeriodInSeconds": 3600},
            "maxPayloadSizeBytes": 65536,
        }
        main["connectors"] = [{"type": "modbus", "name": "modbus", "configuration": "modbus.json"}]
        tag = {"tag": "r${address}", "type": "16uint", "functionCode": 3, "objectsCount": 1, "address": "0-9"}
        slaves = [
            {
                "host": "127.0.0.1",
                "port": port,
                "type": "tcp",
                "method": "socket",
                "unitId": 1,
                "deviceName": str(place),
                "deviceType": "default",
                "timeout": 3,
                "byteOrder": "BIG",
                "wordOrder": "BIG",
                "pollPeriod": round(interval_s * 1000),
                "attributes": [],
                "timeseries": [tag],
                "attributeUpdates": [],
                "rpc": [],
            }
            for place, port in enumerate(ports)
        ]
        logs = json.loads((shipped / "logs.json").read_text())
        for logger in (*logs["loggers"].values(), logs["root"]):
            logger["level"] = "ERROR"
        for name, content in {"tb_gateway": main, "modbus": {"master": {"slaves": slaves}}, "logs": logs}.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return ["env", f"TB_GW_CONFIG_DIR={folder}", str(self._program)]

    async def take(self, delivery: Delivery, link: Session, heard: Heard) -> None:
        asked = "v1/devices/me/rpc/request/"
        if delivery.topic.startswith(asked):
            number = delivery.topic.removeprefix(asked)
            await link.publish(f"v1/devices/me/rpc/response/{number}", self._limits)
        elif delivery.topic == "v1/gateway/telemetry":
            for device, readings in json.loads(delivery.payload).items():
                for reading in readings:
                    values = reading["values"]
                    counters = [values["r0"]] if "r0" in values else []
                    heard.note([int(device)] * len(counters), counters, len(values))


class NodeRed:
    """Node-RED: a modbus-read node a device, wired to one MQTT node; a message a poll, a bare list of numbers."""

    name = "Node-RED"
    topic = "bench/#"

    def __init__(self, folder: Path) -> None:
        self._modules = folder / "node_modules"

    def command(self, folder: Path, ports: Sequence[int], broker: int, interval_s: float) -> list[str]:
        flow: list[dict[str, object]] = [
            {"id": "tab", "type": "tab", "label": "bench"},
            {"id": "broker", "type": "mqtt-broker", "broker": "127.0.0.1", "port": str(broker), "clientid": "node-red"},
            {"id": "out", "type": "mqtt out", "z": "tab", "topic": "", "qos": "1", "broker": "broker", "wires": []},
        ]
        for place, port in enumerate(ports):
            client = {
                "clienttype": "tcp",
                "bufferCommands": True,
                "failureLogEnabled": True,
                "tcpHost": "127.0.0.1",
                "tcpPort": str(port),
                "tcpType": "DEFAULT",
                "unit_id": 1,
                "commandDelay": 1,
                "clientTimeout": 1000,
                "reconnectOnTimeout": True,
                "reconnectTimeout": 2000,
                "parallelUnitIdsAllowed": True,
            }
            read = {
                "z": "tab",
                "topic": f"bench/{place}",
                "unitid": "1",
                "dataType": "HoldingRegister",
                "adr": "0",
                "quantity": str(len(METRICS)),
                "rate": str(round(interval_s * 1000)),
                "rateUnit": "ms",
                "server": f"client-{place}",
                "useIOFile": False,
                "emptyMsgOnFail": False,
                "wires": [["out"], []],
            }
            flow += [
                {"id": f"client-{place}", "type": "modbus-client", **client},
                {"id": f"read-{place}", "type": "modbus-read", **read},
            ]
        (folder / "flows.json").write_text(json.dumps(flow))
        (folder / "settings.js").write_text(
            "module.exports = { flowFile: 'flows.json', disableEditor: true, httpAdminRoot: false, httpNodeRoot: false,"
            f" uiPort: 0, nodesDir: {json.dumps(str(self._modules / 'node-red-contrib-modbus'))} }}\n"
        )
        return [
            "node",
            str(self._modules / "node-red" / "red.js"),
            "-u",
            str(folder),
            "-s",
            str(folder / "settings.js"),
        ]

    async def take(self, delivery: Delivery, link: Session, heard: Heard) -> None:
        del link
        values = json.loads(delivery.payload)
        heard.note([int(delivery.topic.removeprefix("bench/"))], [values[0]], len(values))
