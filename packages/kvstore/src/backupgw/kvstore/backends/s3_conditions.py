"""Whether a service refuses to replace an object when it is told to (If-None-Match: *).

Amazon does (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). Others
know the condition for whole objects only, or ignore it and replace what is there: that is tried, on
an object of our own, when a place is opened.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..names import RESERVED_PREFIX
from .errors import ObjectExists, PermissionDenied, UnsupportedOperation
from .part_transfers import Attempts, SentPart
from .s3_requests import Requests
from .s3_settings import Settings

_PROBE = f"{RESERVED_PREFIX}-probe"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the service refuses: to replace by one request, and by completing an upload."""

    whole: bool
    parts: bool

    @property
    def atomic_create(self) -> bool:
        """Whether that holds for values of every size."""
        return self.whole and self.parts


def find_out(settings: Settings, requests: Requests, root: str) -> Conditions:
    """Return what holds for a place: what was set, what is documented, or what a trial shows.

    Args:
        root: what every key of the place begins with.
    """
    if settings.atomic_create is not None:
        return Conditions(settings.atomic_create, settings.atomic_create)
    if settings.amazon:
        return Conditions(whole=True, parts=True)
    trial = _Trial(settings, requests, root + _PROBE)
    try:
        whole = trial.refuses_whole()
        return Conditions(whole, parts=whole and trial.refuses_parts())
    except (PermissionDenied, UnsupportedOperation):
        return Conditions(whole=False, parts=False)  # who may not write needs neither


class _Trial:
    def __init__(self, settings: Settings, requests: Requests, key: str) -> None:
        self._requests = requests
        self._key = key
        self._label = settings.label
        self._attempts = Attempts(settings.schedule, settings.label)

    def refuses_whole(self) -> bool:
        """Try to replace the object; the first attempt may be the one that makes it."""
        for _ in range(2):
            try:
                self._attempts.result(self._put)
            except ObjectExists:
                return True
        return False

    def _put(self) -> None:
        self._requests.put(self._key, b"", self._label, if_absent=True, plain=True)

    def refuses_parts(self) -> bool:
        """Try to replace it, which exists, by an upload."""
        key, label, requests = self._key, self._label, self._requests
        upload = self._attempts.result(lambda: requests.begin(key, label, mark=None, plain=True))
        try:
            part = self._attempts.result(lambda: requests.put_part(key, upload, 1, b"?", label))
            requests.complete(key, upload, [SentPart(1, 1, part)], label, if_absent=True)
        except ObjectExists:
            return True
        except UnsupportedOperation:
            return False
        finally:
            requests.abandon(key, upload, label)
        return False
