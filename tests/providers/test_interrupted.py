"""Ctrl-C at the moments at which a lock of Python's library stays taken: nothing waits for it."""

from __future__ import annotations

from backupgw.runtime import cli
from tests.ctrl_c import at_every_lock
from tests.providers.provider_site import Site


def test_an_upload_ends_wherever_it_is_interrupted(site: Site) -> None:
    nas = site.local()
    files = [str(site.file(f"{number}", b"%d" % number)) for number in range(20)]
    words = ["provider", "upload", "local", *files, "--config", str(site.config)]
    at_every_lock(lambda: cli.main(words))
    assert len([path for path in nas.iterdir() if path.name.isdigit()]) == 20
