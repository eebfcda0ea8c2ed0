"""Kill work at every step it takes, however fast the machine is."""

import multiprocessing
import os
import signal
import sys
from itertools import count

# What Python says before it changes a folder, and a step that a test names itself.
STEP = "stdiff.test.step"
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", STEP}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed_before(step, work):
    """Run ``work`` in a process of its own, killed before its step number ``step``, from 1.

    A step creates, opens for writing, renames or removes a file or folder, or is named by
    ``sys.audit(STEP)``. False if the work ended before, as it then must, without an error.
    """

    def child():
        steps = count(1)

        def before(event, arguments):
            changes = event in _CHANGES or (event == "open" and _writes(arguments))
            if changes and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(before)
        work()

    process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _writes(arguments):
    path, _, flags = arguments
    return isinstance(path, str) and bool(flags & _WRITES) and not path.startswith("/dev/")
