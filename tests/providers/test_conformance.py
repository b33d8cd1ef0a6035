"""Every provider keeps every promise, on real servers or on doubles of its service."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from backupgw.providers import PROVIDERS, conformance
from backupgw.providers.local import LocalProvider
from tests.providers.provider_places import SERVERS, running
from tests.providers.provider_site import Site
from tests.servers import peers

NEEDS = {
    "aws_s3": pytest.mark.peers("rclone"),
    "rclone": pytest.mark.peers("rclone"),
    "sftp": pytest.mark.root("sshd"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=NEEDS.get(each, ())) for each in SERVERS]
)
def test_provider(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path) as provider:
        results = conformance.run(provider)
    assert {each.check: each.message for each in results if not each.passed} == {}
    assert len(results) == len(conformance.CHECKS)
    counted = provider.calls.counts()
    assert bool(counted) == (provider.costs is not None)


def test_with_encryption_and_a_limit(tmp_path: Path) -> None:
    more = {"encryption_enabled": True, "encryption_key": "a passphrase", "max_bandwidth": "500M"}
    with running("local", tmp_path, **more) as provider:
        results = conformance.run(provider)
    assert {each.check: each.message for each in results if not each.passed} == {}


class Forgetful(LocalProvider):
    """Says that it has stored what it has not."""

    def upload(self, *arguments: Any, **more: Any) -> bool:
        return True


class Deaf(LocalProvider):
    """Calls what failed a success."""

    def download(self, *arguments: Any, **more: Any) -> bool:
        super().download(*arguments, **more)
        return True

    def delete(self, remote_name: str) -> bool:
        super().delete(remote_name)
        return True


@pytest.mark.parametrize("kind", [Forgetful, Deaf])
def test_a_provider_that_lies_is_found_out(kind: type[LocalProvider], tmp_path: Path) -> None:
    provider = kind({"container": str(tmp_path / "nas"), "max_retries": 1})
    failed = {each.check for each in conformance.run(provider) if not each.passed}
    provider.close()
    assert {Forgetful: "every_size_comes_back", Deaf: "what_fails_is_no_success"}[kind] in failed


@pytest.fixture
def guides_provider(site: Site) -> Path:
    """The documents' example, where an installation has providers of its own."""
    folder = site.config.parent / "providers"
    folder.mkdir(mode=0o700)
    target = folder / "shelf.py"
    shutil.copy(peers.ROOT / "docs" / "providers" / "shelf.py", target)
    target.chmod(0o600)
    return target


def test_the_documents_example_is_a_provider(
    site: Site, guides_provider: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = site.folder / "shelf"
    shelf.mkdir()
    try:
        site.run("enable", "shelf", f"--set=container={shelf}")
        assert "passed" in site.run("test", "shelf")
        assert "compared" in site.run("test-cycle", "shelf")
        path = site.file("x", b"content")
        site.run("upload", "shelf", path)
        assert site.run("ls", "shelf") == "x\n"
        site.run("download", "shelf", "x", site.folder / "back")
        assert (site.folder / "back").read_bytes() == b"content"
        site.run("download", "shelf", "nothing", site.folder / "y", status=1)
        capsys.readouterr()
        status = conformance.main(["shelf", "--config", str(site.config)])
        out = capsys.readouterr().out
        assert (status, "FAILED" in out) == (0, False), out
    finally:
        PROVIDERS.pop("shelf", None)
        sys.modules.pop("backupgw.providers.shelf", None)


def test_a_file_that_others_can_change_is_not_run(site: Site, guides_provider: Path) -> None:
    guides_provider.chmod(0o666)
    listed = {each["name"]: each for each in site.json("list")}
    assert "chmod go-w" in listed["shelf"]["problem"]
    assert "backupgw.providers.shelf" not in sys.modules
    PROVIDERS.forget_broken()


def test_the_guides_own_template_runs_unchanged(site: Site) -> None:
    """What the guide shows, put together, with its unit tests' expectations."""
    folder = site.config.parent / "providers"
    folder.mkdir(mode=0o700)
    (folder / "new_provider.py").write_text(TEMPLATE)
    (folder / "new_provider.py").chmod(0o600)
    shelf = site.folder / "shelf"
    shelf.mkdir()
    try:
        site.run(
            "enable", "new_provider", f"--set=bucket_name={shelf}", "--set=api_key=k",
            "--set=secret_key=s",
        )  # fmt: skip
        site.run("test", "new_provider")
        provider = PROVIDERS["new_provider"]({"api_key": "k", "bucket_name": str(shelf)})
        assert provider.name == "new"
        assert provider.test_connection() is True
        test_file = site.file("test_file.txt", b"test content")
        assert provider.upload(test_file, "test_file.txt") is True
        download_path = site.folder / "downloaded_file.txt"
        assert provider.download("test_file.txt", download_path) is True
        assert download_path.read_text() == "test content"
        site.run("upload", "new_provider", site.folder / "missing", status=1)
    finally:
        PROVIDERS.pop("new_provider", None)
        sys.modules.pop("backupgw.providers.new_provider", None)


TEMPLATE = """
from typing import List, Dict, Any, Optional, Callable
from pathlib import Path
import shutil
import time
from .base import BaseProvider

class NewProvider(BaseProvider):
    def __init__(self, config: Dict[str, Any]):
        super().__init__(config)
        self._initialize_service()

    def _initialize_service(self):
        self.root = Path(self.config['bucket_name'])

    def _validate_config(self) -> bool:
        required_fields = ['api_key', 'bucket_name']
        for field in required_fields:
            if not self.config.get(field):
                self.logger.error(f"Missing required field: {field}")
                return False
        return True

    def upload(self, file_path: Path, remote_name: str,
               progress_callback: Optional[Callable] = None) -> bool:
        for attempt in range(self.max_retries):
            try:
                if progress_callback:
                    progress_callback(0, file_path.stat().st_size)
                shutil.copy(file_path, self.root / remote_name)
                if progress_callback:
                    progress_callback(file_path.stat().st_size, file_path.stat().st_size)
                return True
            except ConnectionError as e:
                if attempt < self.max_retries - 1:
                    time.sleep(self.retry_delay * (2 ** attempt))
            except OSError as e:
                self.logger.error(f"API error: {e}")
                return False
        return False

    def download(self, remote_name: str, local_path: Path,
                 progress_callback: Optional[Callable] = None) -> bool:
        shutil.copy(self.root / remote_name, local_path)
        return True

    def list_files(self, prefix: str = "", max_files: int = 1000) -> List[Dict[str, Any]]:
        files = []
        for path in self.root.iterdir():
            if prefix and not path.name.startswith(prefix):
                continue
            if len(files) >= max_files:
                break
            files.append({'name': path.name, 'size': path.stat().st_size})
        return files

    def delete(self, remote_name: str) -> bool:
        (self.root / remote_name).unlink()
        return True

    def test_connection(self) -> bool:
        return self.root.is_dir()

PROVIDERS = {
    'new_provider': NewProvider
}
"""
