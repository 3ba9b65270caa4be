"""What every way of speaking over MQTT has in common."""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

from edge.hearing import Heard, Said, Strange
from edge.installed import Installed
from rules.declared import Refused

__all__ = ["Dialect", "Strange", "alone"]

Key = TypeVar("Key")


def alone(places: Iterable[tuple[Key, Installed]]) -> dict[Key, Installed]:
    """Give each device its place by what it is known by; ``Refused`` when two are known by the same."""
    found: dict[Key, Installed] = {}
    for key, place in places:
        other = found.setdefault(key, place)
        if other is not place:
            raise Refused(f"device {place.device.id}: wire", f"is the same as of {other.device.id}: who is who?")
    return found


class Dialect:
    """One way of speaking, for the devices of a gateway that speak so. Instants are UTC ns of the city."""

    subscriptions: tuple[str, ...] = ()
    topics: Collection[str] = ()  # those it owns that it can name, so that nobody has to be asked for them

    def owns(self, topic: str) -> bool:
        """Tell whether a topic is in this dialect."""
        raise NotImplementedError

    def device_of(self, topic: str) -> str:
        """Name the device that a topic is of, for the log; empty where the topic does not tell."""
        raise NotImplementedError

    def hear(self, topic: str, payload: bytes, now: int) -> Sequence[Heard] | None:
        """Read a message that came at ``now``; empty: nothing of it is declared, None: it is nobody's business here.

        ``Malformed`` names the place in the message and what is wrong there, ``Strange`` a device nobody declared. What
        is wrong with a part of a message stands in its place, and the rest is good.
        """
        raise NotImplementedError

    @property
    def due(self) -> int | None:
        """When ``expire`` must be called though nothing came; None: it need not."""
        return None

    def expire(self, now: int) -> Sequence[Said]:
        """Say what follows from hearing nothing until ``now``."""
        del now
        return ()

    def connected(self, now: int) -> None:
        """Take note that a connection began: what was sent without acknowledgement meanwhile is lost."""

    def outgoing(self) -> Sequence[tuple[str, bytes, bool]]:
        """Take the messages (topic, payload, whether it is retained) that this dialect wants sent."""
        return ()
