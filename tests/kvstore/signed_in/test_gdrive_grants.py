"""A person lets a gateway into Google Drive: in a browser, which then shows an address that it
cannot open."""

from __future__ import annotations

import logging
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.servers.double import Double
from tests.servers.drive_double import Service as DriveService
from tests.servers.tls import make_certificate

from backupgw.kvstore import open_place
from backupgw.kvstore.backends import grants
from backupgw.kvstore.backends.errors import BackendURLInvalid, PermissionDenied
from backupgw.kvstore.backends.loopback import Loopback


def asked(address: str) -> int:
    """Ask for a page as a browser does; returns the status."""
    try:
        with urllib.request.urlopen(address) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


class TestGrants:
    """A person agrees in a browser, which then shows an address that it cannot open."""

    @pytest.fixture
    def secure(self, tmp_path: Path) -> Iterator[tuple[Double, dict[str, Any]]]:
        certificate = make_certificate(tmp_path)
        service = DriveService()
        with Double(service, certificate=certificate) as double:
            yield (
                double,
                {
                    "endpoint": double.url,
                    "client_id": service.client_id,
                    "client_secret": service.client_secret,
                    "cacert": str(certificate.authority),
                },
            )

    def agree(self, double: Double, page: str, authority: str) -> str:
        import ssl

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any, **__: Any) -> None:
                return None

        context = ssl.create_default_context(cafile=authority)
        secure = urllib.request.HTTPSHandler(context=context)
        browser = urllib.request.build_opener(NoRedirect, secure)
        parts = urlsplit(page)
        with pytest.raises(urllib.error.HTTPError) as redirected:
            browser.open(f"{double.url}{parts.path}?{parts.query}")
        redirected.value.close()
        return str(redirected.value.headers["location"])

    def test_the_address_brings_the_grant(self, secure: tuple[Double, dict[str, Any]]) -> None:
        double, options = secure
        service: Any = double._application
        grant = grants.begin("gdrive:x", options)
        address = self.agree(double, grant.visit, options["cacert"])
        assert address.startswith("http://127.0.0.1:")
        assert grant.option == "refresh_token"
        assert "address" in grant.brings
        assert grant.finish(f" {address}\n") == service.refresh_token
        place = open_place("gdrive:x", refresh_token=service.refresh_token, **options)
        place.create()
        with place:
            place.store("item", b"value")

    def test_a_browser_of_this_machine_brings_it(
        self, secure: tuple[Double, dict[str, Any]]
    ) -> None:
        double, options = secure
        service: Any = double._application
        with Loopback() as here:
            grant = grants.begin("gdrive:x", options, here.address)
            assert grant.is_answer is not None
            address = self.agree(double, grant.visit, options["cacert"])
            assert address.startswith(here.address)
            with ThreadPoolExecutor(1) as browser:
                for other in (
                    here.address,
                    f"{here.address}favicon.ico",
                    re.sub("state=[^&]*", "state=another", address),
                    re.sub("&state=[^&]*", "", address),
                    address.replace("127.0.0.1", "localhost"),  # a page that names us otherwise
                ):
                    shown = browser.submit(asked, other)
                    assert here.answer(grant.is_answer) is None
                    assert shown.result() == 404
                shown = browser.submit(asked, address)
                answer = here.answer(grant.is_answer)
                assert shown.result() == 200
            assert answer == address
            assert grant.finish(answer) == service.refresh_token

    def test_no_log_tells_a_secret(
        self, secure: tuple[Double, dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        double, options = secure
        service: Any = double._application
        with caplog.at_level(logging.DEBUG):
            grant = grants.begin("gdrive:x", options)
            token = grant.finish(self.agree(double, grant.visit, options["cacert"]))
            place = open_place("gdrive:x", refresh_token=token, part_size=1 << 20, **options)
            place.create()
            with place:
                place.store("item", bytes(3 << 20))
                place.load("item")
        ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]
        said = "".join(f"{record.getMessage()} {record.__dict__}" for record in ours)
        assert said, "at this level something is told"
        for secret in (token, service.client_secret, "upload_id", *service._tokens):
            assert secret not in said

    def test_the_code_alone_does_as_well(self, secure: tuple[Double, dict[str, Any]]) -> None:
        double, options = secure
        grant = grants.begin("gdrive:x", options)
        address = self.agree(double, grant.visit, options["cacert"])
        code = re.search(r"code=([^&]+)", address)
        assert code is not None
        service: Any = double._application
        assert grant.finish(code[1]) == service.refresh_token

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            ("wrong", "begin again"),
            ("http://127.0.0.1:53671/?error=access_denied", "access_denied"),
            ("http://127.0.0.1:53671/?code=4/x&state=another", "another attempt|this attempt"),
        ],
    )
    def test_answers_that_bring_none(
        self, secure: tuple[Double, dict[str, Any]], answer: str, message: str
    ) -> None:
        with pytest.raises(PermissionDenied, match=message):
            grants.begin("gdrive:x", secure[1]).finish(answer)

    def test_without_an_app(self) -> None:
        with pytest.raises(BackendURLInvalid, match="client_id"):
            grants.begin("gdrive:x", {})
