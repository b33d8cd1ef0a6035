"""The recipe for nginx and the unit for systemd, as they are handed out."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.conftest import SYSTEM_PATH
from tests.servers.free_port import free_port
from tests.servers.process import ServerProcess
from tests.servers.tls import Certificate
from tests.servers.wings_double import PIECE, WingsDouble
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "deploy" / "backupgw-wings.nginx.conf"
UNIT = ROOT / "deploy" / "backupgw-wings.service"


class Nginx:
    """nginx with the recipe, in front of a gateway in front of a Wings."""

    def __init__(self, folder: Path, certificate: Certificate, gateway: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "access.log"
        recipe = RECIPE.read_text()
        changes = {
            "server 127.0.0.1:8080;": f"server {gateway};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "listen [::]:443 ssl;": "",
            "/etc/letsencrypt/live/node.example.com/fullchain.pem": str(certificate.chain),
            "/etc/letsencrypt/live/node.example.com/privkey.pem": str(certificate.key),
            "/var/log/nginx/backupgw-wings.log": str(self.log),
        }
        for old, new in changes.items():
            assert old in recipe
            recipe = recipe.replace(old, new)
        self.file = folder / "nginx.conf"
        temporary = "".join(
            f"{name}_temp_path {folder};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self.file.write_text(
            f"daemon off; pid {folder}/pid; error_log stderr notice; user root;\n"
            f"events {{}}\nhttp {{ {temporary} {recipe} }}\n"
        )

    def command(self, *arguments: str) -> list[str]:
        program = shutil.which("nginx", path=SYSTEM_PATH)
        assert program is not None
        return [program, "-p", str(self.folder), "-c", str(self.file), "-e", "stderr", *arguments]


@pytest.fixture(scope="module")
def wings() -> Iterator[WingsDouble]:
    with WingsDouble() as wings:
        yield wings


@pytest.fixture(scope="module")
def nginx(
    wings: WingsDouble, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    command = [sys.executable, "-m", "tests.wingsadapter.passing_app", wings.url]
    with ServerProcess(command, ready=r"start server on (\S+)", directory=ROOT) as gateway:
        nginx = Nginx(tmp_path_factory.mktemp("nginx"), certificate, gateway.match[1])
        with ServerProcess(nginx.command(), ready="start worker process "):
            yield nginx


@pytest.fixture
def client(nginx: Nginx, certificate: Certificate) -> Iterator[httpx.Client]:
    address = f"https://localhost:{nginx.port}"
    with httpx.Client(base_url=address, verify=certificate.client_context(), timeout=60) as client:
        yield client


@pytest.mark.root("nginx")
def test_the_recipe_is_valid(nginx: Nginx) -> None:
    done = subprocess.run(nginx.command("-t"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@pytest.mark.root("nginx")
def test_requests_arrive_with_who_asked(client: httpx.Client, nginx: Nginx) -> None:
    found = client.get("/api/x", params={"file": "/a b"}).json()
    headers = dict(found["headers"])
    assert (found["target"], found["query"]) == ("/api/x", "file=%2Fa+b")
    assert headers["host"] == headers["x-forwarded-host"] == f"localhost:{nginx.port}"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-for"] == "127.0.0.1, 127.0.0.1"


@pytest.mark.root("nginx")
def test_bodies_go_through_as_they_come(client: httpx.Client, nginx: Nginx) -> None:
    count = (64 << 20) // len(PIECE)
    found = client.post("/api/upload", content=iter([PIECE] * count)).json()
    assert found["sha256"] == hashlib.sha256(PIECE * count).hexdigest()
    with client.stream("GET", "/api/big?mib=64") as answer:
        assert sum(map(len, answer.iter_raw())) == 64 << 20
    spilled = [path for path in nginx.folder.iterdir() if path.name.isdigit()]
    assert spilled == []
    with client.stream("GET", "/api/endless") as answer:  # nothing is gathered first
        assert next(answer.iter_raw()).startswith(b"begun")


@pytest.mark.root("nginx")
def test_consoles_go_through(nginx: Nginx, certificate: Certificate) -> None:
    url = f"wss://localhost:{nginx.port}/api/servers/x/ws"
    with connect(url, ssl=certificate.client_context(), open_timeout=60) as console:
        console.send("hello")
        assert console.recv(60) == "hello"


@pytest.mark.root("nginx")
def test_no_token_is_in_the_log(client: httpx.Client, nginx: Nginx) -> None:
    client.get("/download/backup", params={"token": "hush.hush.hush"})
    for _ in range(600):
        if nginx.log.exists() and "/download/backup" in nginx.log.read_text():
            break
        time.sleep(0.05)
    logged = nginx.log.read_text()
    assert "GET /download/backup HTTP/1.1" in logged
    assert "hush" not in logged


@pytest.mark.root("systemd-analyze")
def test_the_unit_is_valid(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    program = Path(sys.executable).parent / "backupgw"
    text = UNIT.read_text().replace("/opt/backupgw/.venv/bin/backupgw", str(program))
    assert str(program) in text
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    about_it = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, about_it) == (0, [])
    # Every setting is one that this systemd knows, and a typo would be told.
    unit.write_text(text.replace("ProtectClock=", "ProtectClocks="))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search("Unknown key.*ProtectClocks", done.stderr)
