"""tus-js-client, the tus client of browsers, run by Node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import peers

_SCRIPT = Path(__file__).with_suffix(".cjs")


def upload(file: Path, endpoint: str, headers: Mapping[str, str], **options: Any) -> dict[str, Any]:
    """Upload a file; return `url`, `done`, `statuses` and, where it failed, `error`.

    Args:
        options: `url` to carry on at, `chunk` and `stop` in bytes, `parallel` uploads, `override`
            (POST only), `during` (bytes with the creation), `deferred` length, `metadata`,
            `retries` in milliseconds.
    """
    asked = {"file": str(file), "endpoint": endpoint, "headers": dict(headers), **options}
    asked.setdefault("metadata", {"filename": file.name})
    done = subprocess.run(
        [str(peers.get(peers.TUS_JS).path), str(_SCRIPT), json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
