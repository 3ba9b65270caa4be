"""What one device needs of a bus: its read requests, and their replies decoded for any number of readings at once."""

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.codec import MOST, Codec
from edge.plan import Request, plan, split
from edge.profile import Profile
from edge.scaling import Scaling, scalings
from rules.samples import BAD, QUALITY, VALUE, Quality


class Reads:
    """The ``requests`` that read a device; it never changes, so devices may share it.

    Parameters
    ----------
    profile
        Its model.
    base
        How much further on its registers are than the profile's (``rules.district.Modbus.base``).
    requests
        What to ask instead of the whole plan of the profile, before the shift by ``base``; ``split`` makes them.

    Attributes
    ----------
    requests
        In this order, with the addresses that go over the bus.
    layout
        What the replies mean. It is one object for all devices of one ``Profile`` object that are asked alike, wherever
        they are based: what has the same layout is decoded together.
    """

    def __init__(self, profile: Profile, base: int = 0, requests: tuple[Request, ...] | None = None) -> None:
        self._profile = profile
        self._base = base
        self.layout = _layout_of(profile, plan(profile.point, profile.limits) if requests is None else requests)
        self.requests = tuple(replace(each, start=each.start + base) for each in self.layout.requests)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The metrics that no request reads, since the device refused them."""
        asked = {position for request in self.requests for position in request.points}
        return tuple(point.metric for number, point in enumerate(self._profile.point) if number not in asked)

    def split(self, refused: Request) -> "Reads":
        """Give what to ask once the device has refused one of ``requests`` (exception 02 or 03).

        It is cut at its holes, one without holes into single values, and a single value is left out: whoever goes on
        with the result until nothing is refused asks for exactly what the device has. There may be nothing left. The
        pieces stand in its place, so that what was answered before it stays answered.
        """
        asked = list(self.layout.requests)
        at = self.requests.index(refused)
        asked[at : at + 1] = split(asked[at], self._profile.point)
        return Reads(self._profile, self._base, tuple(asked))

    def decode(self, replies: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Decode as ``layout`` does."""
        return self.layout.decode(replies)


class Layout:
    """What the replies to some ``requests`` (based at 0) mean; ``Reads`` makes it."""

    def __init__(self, profile: Profile, requests: tuple[Request, ...]) -> None:
        self.profile = profile
        self.requests = requests
        self._scalings = scalings(profile.point)
        # Where the scale comes from elsewhere, offset and range have to wait for it.
        points = list(profile.point)
        for scaling in self._scalings:
            points[scaling.column] = msgspec.structs.replace(scaling.point, offset=0.0, range=None)
        self._codecs = [(np.array(request.points), Codec(points, request)) for request in requests]
        self._width = len(points)

    def decode(self, replies: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Decode the data bytes ``[m, bytes]`` of each request of ``m`` readings: values, quality ``[m, points]``.

        What is not asked for is NaN and good: it was not told. The value of a sample of bad quality is 0.0; where the
        scale or unit is bad the value is as bad, where it makes no sense ``BAD_SENTINEL``, where the device refuses it
        ``BAD_COMMS``.
        """
        value = np.full((len(replies[0]), self._width), np.nan, VALUE)
        quality = np.zeros(value.shape, QUALITY)
        for (columns, codec), reply in zip(self._codecs, replies, strict=True):
            value[:, columns], quality[:, columns] = codec.decode(reply)
        for scaling in self._scalings:
            _rescale(scaling, value, quality)
        return value, quality


_layouts: WeakValueDictionary[tuple[int, tuple[Request, ...]], Layout] = WeakValueDictionary()


def _layout_of(profile: Profile, requests: tuple[Request, ...]) -> Layout:
    """Find or make a layout. Profiles are told apart by identity, which a layout keeps from being used again."""
    key = (id(profile), requests)
    layout = _layouts.get(key)
    if layout is None:
        layout = _layouts[key] = Layout(profile, requests)
    return layout


def _rescale(scaling: Scaling, value: NDArray[np.float64], quality: NDArray[np.uint8]) -> None:
    """Finish one column in place: the rest of its scale, its offset, its range."""
    point, column = scaling.point, scaling.column
    low, high = point.range or (-MOST, MOST)
    factor = scaling.factor(value)
    with np.errstate(over="ignore"):
        found = value[:, column] * factor + point.offset
    worst = quality[:, [column, *scaling.sources]].max(axis=1)
    causes = {
        Quality.BAD_COMMS: np.isnan(factor),
        Quality.BAD_SENTINEL: factor == 0,
        Quality.BAD_RANGE: (found < low) | (found > high),
    }
    worst = np.where(worst < BAD, np.select(list(causes.values()), list(causes), worst), worst)
    told = ~np.isnan(value[:, column])
    value[:, column] = np.where((worst >= BAD) & told, 0.0, found)
    quality[:, column] = np.where(told, worst, Quality.GOOD)
