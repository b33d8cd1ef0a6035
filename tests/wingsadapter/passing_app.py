"""The application that passes everything on, in the host: `python -m` with Wings' address."""

from __future__ import annotations

import json
import sys
from typing import Any

from starlette.types import Receive, Scope, Send

from backupgw.runtime.http.host import Hosted, run
from backupgw.runtime.http.options import HttpOptions
from backupgw.wingsadapter.incoming import Refusal
from backupgw.wingsadapter.upstream import Upstream


class App:
    def __init__(self, url: str, *, verify: bool) -> None:
        self._upstream = Upstream(url, verify=verify)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    await self._upstream.aclose()
                    return
        try:
            await self._upstream(scope, receive, send)
        except Refusal as refusal:
            body = json.dumps({"error": refusal.text}).encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send(
                {"type": "http.response.start", "status": refusal.status, "headers": headers}
            )
            await send({"type": "http.response.body", "body": body})

    async def ready(self) -> bool:
        return True

    async def metrics_allowed(self, scope: Scope) -> int:
        return 401


def make(argument: dict[str, Any]) -> App:
    return App(argument["url"], verify=argument["verify"])


if __name__ == "__main__":
    sys.exit(
        run(
            [
                Hosted(
                    name="passing",
                    app="tests.wingsadapter.passing_app:make",
                    argument={"url": sys.argv[1], "verify": "--no-verify" not in sys.argv},
                    options=HttpOptions(listen=["127.0.0.1:0"], graceful_timeout=5),
                )
            ]
        )
    )
