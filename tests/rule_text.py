"""Rules for tests, without the words that a shipped rule owes its reader."""

import tomllib

from rules.declared import convert
from rules.rule import Rule

_WORDS = {"zh": "测试", "en": "test"}


def rule(text: str, **replaced: object) -> Rule:
    """A rule from TOML that says only ``level`` (and what else matters to the test)."""
    raw: dict[str, object] = {
        "id": "test.rule",
        "kind": "gauge",
        "hazard": "flood",
        "case": "city",
        "title": _WORDS,
        "confirm": {"policy": "auto"},
        "runbook": {
            "cause": _WORDS, "consequence": _WORDS, "response": _WORDS, "function": "f", "limit": "1h", "source": "test"
        },
        "source": "test",
        "fires_when": [{"say": "-", "every": "1s", "points": {"level": [[1.0, "1s"]]}}],
        "quiet_when": [{"say": "-", "every": "1s", "points": {"level": [[0.0, "1s"]]}}],
    }  # fmt: skip
    return convert(raw | tomllib.loads(text) | replaced, Rule, "test")
