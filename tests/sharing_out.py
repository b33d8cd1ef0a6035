"""How the tests are shared out among several workers: by file, and none twice.

A file's tests run one after the other in one worker, so that what they share is started once.
(pytest-xdist's own groups, `xdist_group`, do nothing with the pytest that we have: it lets no
plug-in change a test's id, which is how they are told.) And a test that ended its worker has
failed: pytest-xdist's scheduler would give it to the next one, too, and to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling
    from xdist.workermanage import WorkerController

    class ByFile(LoadFileScheduling):  # type: ignore[misc]  # it comes without types
        def remove_node(self, node: WorkerController) -> str | None:
            work = self.assigned_work[node].values()
            running = next((t for unit in work for t, done in unit.items() if not done), None)
            for unit in work:
                if running in unit:
                    unit[running] = True
            super().remove_node(node)
            return running

        def _reschedule(self, node: WorkerController) -> None:
            # A worker runs a test when it knows of one behind it, or that there is none: one that
            # took another's place would wait for ever with a file of a single test.
            super()._reschedule(node)
            while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
                super()._reschedule(node)

    return ByFile(config, log)
