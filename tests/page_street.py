"""The recorded answers of a district centre, with just enough life for the console's tests: orders move along."""

import hashlib
import json
import time
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Record = dict[str, Any]
RECORDED = Path(__file__).with_name("page_recorded.json")
ACTIONS = {  # what a state allows, and where each leads: written anew here, so that the page is not tested on itself
    "dispatched": {"accept": "accepted", "return": "returned", "cancel": "cancelled"},
    "accepted": {"arrive": "arrived", "return": "returned", "cancel": "cancelled"},
    "arrived": {"handle": "feedback", "return": "returned"},
    "feedback": {"verify": "verified"},
    "verified": {"close": "closed"},
    "returned": {"redispatch": "dispatched", "cancel": "cancelled"},
}
FOUND = ("finding", "outcome", "cause")


class Refused(Exception):  # noqa: N818 - named by what happened to the request
    """The order's life does not allow it."""


class Street:
    """The recording, and what moves in it. The city clock starts at the recording's and runs at its speed."""

    def __init__(self) -> None:
        recorded: Record = json.loads(RECORDED.read_text(encoding="utf-8"))
        self._clock: Record = recorded["clock"]
        self._started = time.monotonic()
        self.district: Record = recorded["district"]
        self.devices: list[Record] = recorded["devices"]
        self.alerts: dict[str, Record] = {alert["id"]: alert for alert in recorded["alerts"]}
        self.orders: dict[str, Record] = {order["id"]: order for order in recorded["work_orders"]}
        self.trails: dict[str, list[Record]] = recorded["trails"]
        self.evidence: Record = recorded["evidence"]
        self.balance: Record = recorded["balance"]
        self.demo: list[Record] = recorded["demo"]
        self.started: list[str] = []  # demonstrations that were asked for

    def now(self) -> datetime:
        passed = (time.monotonic() - self._started) * float(self._clock["speed"])
        return datetime.fromisoformat(self._clock["now"]) + timedelta(seconds=passed)

    def clock(self) -> Record:
        return {**self._clock, "now": self._iso()}

    def shown(self, order: Record) -> Record:
        """An order as the API tells it: with the time left and the actions that its state allows."""
        remaining = (datetime.fromisoformat(order["due_at"]) - self.now()).total_seconds()
        clock = {**order["clock"], "remaining_s": remaining, "overdue": remaining < 0}
        return {**order, "clock": clock, "actions": list(ACTIONS.get(order["state"], ()))}

    def held(self) -> list[Record]:
        return [alert for alert in self.alerts.values() if alert["decision"]["verdict"] == "held"]

    def act(self, key: str, fields: Record) -> Record:
        order, action = self.orders[key], fields["action"]
        if fields["version"] != order["version"]:
            raise Refused(f"the order is at version {order['version']}, not {fields['version']}")
        if action not in ACTIONS.get(order["state"], {}):
            raise Refused(f"`{action}` is not possible while the order is {order['state']}")
        if action == "verify" and (fields["outcome"] == "misfire") != ("cause" in fields):
            raise Refused("`cause` goes with the outcome `misfire`, and that outcome needs it")
        if action == "verify" and fields["by"] == order.get("handled_by"):
            raise Refused("whoever handled it does not verify it")
        if action == "handle":
            order["handled_by"] = fields["by"]
        found = {name: fields[name] for name in FOUND if name in fields}
        order |= {**found, "state": ACTIONS[order["state"]][action], "version": order["version"] + 1}
        self._tell(key, fields["by"], action, fields.get("why", ""), found)
        return self.shown(order)

    def dispatch(self, key: str, by: str, why: str) -> Record:
        """A person overrules: the held-back alert becomes an order like the first one recorded."""
        alert = self.alerts[key]
        alert["decision"] |= {"verdict": "dispatched", "code": "dispatched_by_person", "numbers": {}}
        order = f"order-{len(self.orders) + 1}"
        same = ("hazard", "severity", "level", "level_title", "title", "site", "device", "reason", "decided_at")
        self.orders[order] = deepcopy(next(iter(self.orders.values()))) | {name: alert[name] for name in same}
        self.orders[order] |= {"id": order, "number": f"310199-260619-{len(self.orders):04}", "state": "dispatched"}
        self.orders[order] |= {
            "confirmation": alert["decision"],
            "opened_at": self._iso(),
            "closure": None,
            "version": 1,
        }
        alert["work_order"] = order
        self.trails[order] = []
        self._tell(order, by, "register", why, {})
        return self.shown(self.orders[order])

    def _tell(self, key: str, who: str, action: str, why: str, detail: Record) -> None:
        entries = self.trails[key]
        previous = entries[-1]["hash"] if entries else "0" * 64
        seal = hashlib.sha256(f"{previous}{who}{action}{why}".encode()).hexdigest()
        told = {"at": self._iso(), "who": who, "action": action, "why": why, "detail": detail}
        entries.append({"n": len(entries) + 1, **told, "previous": previous, "hash": seal})

    def _iso(self) -> str:
        return self.now().isoformat(timespec="milliseconds")
