"""Who a client is: htpasswd files, HTTP Basic, and what guessing costs."""

from .basic import BasicAuthenticator, Credential, parse_basic
from .htpasswd import Htpasswd, HtpasswdError
from .throttle import Throttle, Throttled

__all__ = [
    "BasicAuthenticator",
    "Credential",
    "Htpasswd",
    "HtpasswdError",
    "Throttle",
    "Throttled",
    "parse_basic",
]
