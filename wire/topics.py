"""The topics between gateway and cloud."""

from enum import StrEnum

ROOT = "streetwarden/v1"

UP_FROM_ALL = f"{ROOT}/+/up/#"


class Lane(StrEnum):
    """What a gateway says; ``points`` carries the retained point table, ``answer`` what came of an order."""

    ALERT = "alert"
    LIVE = "live"
    BACKFILL = "backfill"
    STATUS = "status"
    POINTS = "points"
    ANSWER = "answer"


def up(gateway: str, lane: Lane) -> str:
    return f"{ROOT}/{gateway}/up/{lane.value}"


def receipt(gateway: str) -> str:
    return f"{ROOT}/{gateway}/down/receipt"


def command(gateway: str) -> str:
    return f"{ROOT}/{gateway}/down/command"


def parse_up(topic: str) -> tuple[str, Lane]:
    """Gateway and lane of an upward topic; ``ValueError`` for any other."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != ROOT or parts[3] != "up":
        raise ValueError(f"`{topic}` is not a topic of a gateway; it looks like {ROOT}/GATEWAY/up/LANE")
    return parts[2], Lane(parts[4])
