"""A home server's backups to any provider.

from backupgw.providers import create

provider = create("aws_s3", {"container": "my-backups", "region": "eu-central-1"})
if not provider.upload(Path("photos.tar"), "photos.tar"):
    print(provider.last_error)
"""

from .base import BaseProvider as BaseProvider
from .base import ProgressCallback as ProgressCallback
from .fields import ConfigInvalid as ConfigInvalid
from .place_provider import PlaceProvider as PlaceProvider
from .place_provider import place_of as place_of
from .registry import PROVIDERS as PROVIDERS
from .registry import UnknownProvider as UnknownProvider
from .registry import create as create

__all__ = [
    "PROVIDERS",
    "BaseProvider",
    "ConfigInvalid",
    "PlaceProvider",
    "ProgressCallback",
    "UnknownProvider",
    "create",
    "place_of",
]
