"""What of uvicorn and httptools the HTTP host stands on.

When one of these fails after an update, read uvicorn's httptools_impl.py, server.py and config.py
against backupgw.runtime.http.protocol and .server before the pin in requirements.lock is moved.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from importlib.metadata import version
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server, ServerState

from backupgw.runtime.http.ending import EndingProtocol
from backupgw.runtime.http.protocol import GatewayProtocol
from backupgw.runtime.http.server import HostServer
from tests.runtime.http_process import ROOT


def test_the_pinned_version_is_the_one_that_was_read() -> None:
    pinned = re.search(r"^uvicorn==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == version("uvicorn") == "0.54.0"


def methods(of: type) -> set[str]:
    return {name for name, value in vars(of).items() if inspect.isfunction(value)}


def test_every_method_of_the_protocol_is_known() -> None:
    """A new method may be a way around our limits; one that is gone is a hook that never runs."""
    ours = methods(GatewayProtocol) | methods(EndingProtocol)
    replaced = {
        "__init__",
        "connection_lost",
        "connection_made",
        "data_received",
        "eof_received",
        "on_body",
        "on_header",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "resume_writing",
        "shutdown",
    }
    kept = {"on_url", "pause_writing"}
    unused = {
        "_get_upgrade",
        "_should_upgrade",
        "_should_upgrade_to_ws",
        "_start_asgi_task",
        "_unset_keepalive_if_required",
        "_unsupported_upgrade_warning",
        "handle_websocket_upgrade",
        "on_response_complete",
        "send_400_response",
        "timeout_keep_alive_handler",
    }
    assert methods(HttpToolsProtocol) == replaced | kept | unused
    assert replaced <= ours
    assert not ours & (kept | unused)


def test_the_protocol_gets_what_it_is_built_from() -> None:
    assert list(inspect.signature(HttpToolsProtocol).parameters) == [
        "config",
        "server_state",
        "app_state",
        "_loop",
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = uvicorn.Config(app, lifespan="off", log_config=None)
    loop = asyncio.new_event_loop()
    try:
        protocol = HttpToolsProtocol(config, ServerState(), {}, loop)
    finally:
        loop.close()
    for name in ("app", "app_state", "connections", "loop", "parser", "server_state", "tasks"):
        assert getattr(protocol, name) is not None, name
    for name in ("client", "flow", "scheme", "server", "transport"):
        assert getattr(protocol, name) is None, name


def test_flow_control_is_what_bodies_are_held_back_with() -> None:
    assert methods(FlowControl) == {
        "__init__",
        "drain",
        "pause_reading",
        "pause_writing",
        "resume_reading",
        "resume_writing",
    }


def test_the_servers_steps_are_known() -> None:
    assert methods(HostServer) & methods(Server) == {
        "__init__",
        "capture_signals",
        "on_tick",
        "shutdown",
        "startup",
    }
    assert {"_serve", "_wait_tasks_to_complete", "main_loop", "on_tick", "serve"} <= methods(Server)
    assert set(vars(ServerState())) == {
        "connections",
        "default_headers",
        "tasks",
        "total_requests",
    }


def test_what_a_callback_raises_can_be_told_from_a_parse_error() -> None:
    class Callbacks:
        def on_headers_complete(self) -> None:
            raise KeyError("ours")

    with pytest.raises(httptools.HttpParserError) as caught:
        httptools.HttpRequestParser(Callbacks()).feed_data(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(caught.value.__context__, KeyError)
