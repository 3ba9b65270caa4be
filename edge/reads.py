"""What one profile needs of a bus: its read requests, and its replies decoded for any number of readings at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.codec import Codec
from edge.plan import Request, plan
from edge.profile import Profile
from rules.samples import QUALITY, VALUE


class Reads:
    """The ``requests`` that read a device of one profile; all its devices share them."""

    def __init__(self, profile: Profile) -> None:
        self.requests: tuple[Request, ...] = plan(profile.point, profile.limits)
        self._codecs = [Codec(profile.point, request) for request in self.requests]
        self._width = len(profile.point)

    def decode(self, replies: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Decode the data bytes ``[m, bytes]`` of each request of ``m`` readings: values, quality ``[m, points]``."""
        value = np.zeros((len(replies[0]), self._width), VALUE)
        quality = np.zeros(value.shape, QUALITY)
        for request, codec, reply in zip(self.requests, self._codecs, replies, strict=True):
            points = list(request.points)
            value[:, points], quality[:, points] = codec.decode(reply)
        return value, quality
