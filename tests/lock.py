"""Pin every dependency: writes requirements.lock and requirements-dev.lock.

Neither holds an index address, so both work with whatever index the machine is set up for.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN = ("build",)
DEVELOP = ("build", "dev")


def compile_lock(groups: tuple[str, ...], target: str, constraint: str | None) -> None:
    """Resolve all packages' dependencies and the groups' into `target`."""
    packages = sorted(ROOT.glob("packages/*/pyproject.toml"))
    own = [f"backupgw-{path.parent.name}" for path in packages]
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate"]
    command += ["--upgrade"] if "--upgrade" in sys.argv else []
    for name in own:
        command += ["--no-emit-package", name]
    for group in groups:
        command += ["--group", group]
    if constraint is not None:
        command += ["--constraint", constraint]
    command += [str(path.relative_to(ROOT)) for path in packages]
    subprocess.run([*command, "--output-file", target], cwd=ROOT, check=True)


if __name__ == "__main__":
    compile_lock(RUN, "requirements.lock", None)
    compile_lock(DEVELOP, "requirements-dev.lock", "requirements.lock")
