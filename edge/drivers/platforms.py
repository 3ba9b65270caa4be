"""Operators' platforms that push by HTTPS: who they are, how they show it, and which devices they speak for.

Nothing here needs a server, so a configuration can be checked without one.
"""

import base64
import hashlib
import hmac
import ipaddress
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from edge.decoders.plain import Named
from edge.installed import Installed
from rules.declared import Refused
from rules.district import Pushed
from wire.batch import Malformed


class Platform(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a platform shows that it is it, by a secret in ``secret_file`` or in the environment as ``secret_env``.

    ``bearer``: in the header ``Authorization: Bearer SECRET``. ``query``: as ``?token=SECRET``, for platforms that know
    only an address, as CTWing does. ``signature``: OneNET's, in each message and in the question that verifies the
    address (OneNET, "HTTP push": base64 of the MD5 of token, nonce and message; not its encrypted mode).
    """

    how: Literal["bearer", "query", "signature"]
    secret_file: str = ""
    secret_env: str = ""

    def __post_init__(self) -> None:
        if bool(self.secret_file) == bool(self.secret_env):
            raise ValueError("give either `secret_file` or `secret_env`: where the secret is, never the secret itself")

    def secret(self) -> str:
        """Read the secret; ``ValueError`` when there is none."""
        if self.secret_env:
            secret = os.environ.get(self.secret_env, "")
            where = f"the environment variable {self.secret_env}"
        else:
            where = self.secret_file
            try:
                secret = Path(self.secret_file).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{where} cannot be read: {error}") from error
        if not secret:
            raise ValueError(f"{where} is empty: put the secret of the platform there")
        return secret


class Push(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where platforms push to: each to ``/push/NAME``, by TLS with ``certificate`` and ``key`` (PEM files).

    Without these only this machine is served, as behind a proxy that speaks TLS.
    """

    host: str
    port: int
    platforms: dict[str, Platform]
    certificate: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("`certificate` and `key` go together")
        if not self.certificate and not _is_loopback(self.host):
            raise ValueError("`certificate` and `key` are needed: without them only 127.0.0.1 may be served")

    def below(self, folder: Path) -> "Push":
        """Take the paths as relative to a folder."""

        def at(path: str) -> str:
            return path and str(folder / path)

        platforms = {
            name: msgspec.structs.replace(platform, secret_file=at(platform.secret_file))
            for name, platform in self.platforms.items()
        }
        return msgspec.structs.replace(self, platforms=platforms, certificate=at(self.certificate), key=at(self.key))


class Unauthorised(Exception):  # noqa: N818 - named by what the caller answers
    """Whoever sent this has not shown that it is the platform."""


class Door:
    """What one platform must show, and what it brings then."""

    def __init__(self, platform: Platform, named: Named) -> None:
        self.named = named
        self.signs = platform.how == "signature"
        self._how = platform.how
        self._secret = platform.secret().encode()

    def admit(self, authorization: str, token: str) -> None:
        """Look at what a request shows before it is read; ``Unauthorised``."""
        if self._how == "bearer":
            scheme, _, shown = authorization.partition(" ")
            shown = shown.strip() if scheme.lower() == "bearer" else ""
        elif self._how == "query":
            shown = token
        else:
            return
        if not hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._secret):
            raise Unauthorised(f"no `{self._how}` secret, or another one")

    def open(self, body: bytes) -> bytes:
        """Take the message out of a body; ``Unauthorised``, or ``Malformed`` when it is none."""
        if not self.signs:
            return body
        try:
            envelope = msgspec.json.decode(body, type=_Envelope)
            text = bytes(envelope.msg)
            # It signs the message as it stands there: one that is a text without its quotes.
            message = msgspec.json.decode(text, type=str).encode() if text.startswith(b'"') else text
        except (ValueError, RecursionError) as error:  # msgspec's own, or a text that is not UTF-8
            raise Malformed(f"not JSON with `msg`, `nonce` and `signature`: {error}") from error
        self.check(message, envelope.nonce, envelope.signature or envelope.msg_signature)
        return message

    def check(self, message: bytes, nonce: str, signature: str) -> None:
        """Check a signature; ``Unauthorised``."""
        signed = self._secret + nonce.encode("utf-8", "surrogatepass") + message
        expected = base64.b64encode(hashlib.md5(signed, usedforsecurity=False).digest())
        # In an address a `+` that was not escaped arrives as a space.
        shown = signature.replace(" ", "+").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(shown, expected):
            raise Unauthorised("the signature is not of this message and the platform's token")


class _Envelope(msgspec.Struct, frozen=True):
    msg: msgspec.Raw
    nonce: str
    signature: str = ""
    msg_signature: str = ""  # as it was called before


def doors(push: Push, places: Iterable[Installed]) -> Mapping[str, Door]:
    """Make a platform's door by its name; ``Refused`` names a platform or a device that is not in order."""
    pushed: dict[str, list[tuple[str, Installed]]] = {name: [] for name in push.platforms}
    for place in places:
        wire, message = place.device.wire, place.profile.message
        if not isinstance(wire, Pushed):
            continue
        at = f"device {place.device.id}: wire"
        if wire.platform not in pushed:
            raise Refused(f"push.platforms.{wire.platform}", f"is missing, but {place.device.id} is pushed by it")
        if not wire.device:
            raise Refused(f"{at}.device", "is empty: a platform speaks for many devices")
        if not (message.time or message.id):
            why = f"a platform repeats what it got no answer for, but `{place.profile.id}` has no message.time or .id"
            raise Refused(at, why)
        pushed[wire.platform].append((wire.device, place))
    made: dict[str, Door] = {}
    for name, platform in push.platforms.items():
        try:
            made[name] = Door(platform, Named(pushed[name]))
        except Refused:
            raise
        except ValueError as error:
            raise Refused(f"push.platforms.{name}", str(error)) from error
    return made


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
