"""A grant of Dropbox: a refresh token, by the flow for apps without a secret (PKCE, RFC 7636).

(https://developers.dropbox.com/oauth-guide)
"""

from __future__ import annotations

from collections.abc import Mapping

import requests
from dropbox.oauth import DropboxOAuth2FlowNoRedirect

from .errors import BackendConnectionError, BackendURLInvalid, PermissionDenied
from .grants import Grant
from .redirected import redirect as send_elsewhere


def begin(options: Mapping[str, object], redirect: str | None) -> Grant:
    """Ask for it, for the app `app_key`. Dropbox shows the code: it sends browsers to no address
    but those that the app's owner has registered.

    Raises:
        BackendURLInvalid: the option app_key is missing.
    """
    del redirect
    app_key = options.get("app_key")
    if not app_key:
        raise BackendURLInvalid(
            "dropbox: needs the option app_key: that of an app of yours, from "
            "https://www.dropbox.com/developers/apps"
        )
    flow = DropboxOAuth2FlowNoRedirect(
        str(app_key),
        use_pkce=True,
        token_access_type="offline",  # noqa: S106 - the kind of grant: one that lasts
        ca_certs=options.get("cacert"),
    )
    if endpoint := options.get("endpoint"):
        send_elsewhere(flow.requests_session, str(endpoint), 1)

    def finish(code: str) -> str:
        try:
            token: str = flow.finish(code.strip()).refresh_token
        except requests.HTTPError as error:
            status = None if error.response is None else error.response.status_code
            if status in (400, 401):
                # Not chained: the request that it shows holds the code.
                raise PermissionDenied(
                    "Dropbox does not accept the code: it is wrong, was used before or is too "
                    "old; begin again"
                ) from None
            raise BackendConnectionError(f"Dropbox answers with status {status}") from None
        except requests.RequestException as error:
            raise BackendConnectionError(
                f"Dropbox cannot be reached: {type(error).__name__}"
            ) from None
        return token

    return Grant(str(flow.start()), "refresh_token", finish)
