"""Starts a program in the place of itself: tied to the process that asked, and confined on request.

Run as a script, without site-packages, by `child.py`:

    python -I -S launcher.py PARENT SIGNAL CONFINED PROGRAM [ARGUMENT]...

PARENT is the process that asked; when its thread that did so ends, the program gets SIGNAL
(PR_SET_PDEATHSIG, prctl(2)): a restore whose gateway was killed would write into folders that the
next gateway is putting in order.

CONFINED is "", or JSON: {"rules": …, "moved": …}. The rules are what the program may touch of the
disk, a list of [path or descriptor, how], where how is one of "read", "run" and "write". The kernel
holds it to that by landlock(7), wherever a path leads on its way: what a file is called at the
moment it is opened, and by which links, makes no difference. Folders stand for all that is in them;
what is not there is passed over. Moved is a list of [descriptor, other number that it is to get].
"""

import ctypes
import json
import os
import stat
import struct
import sys

_SET_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _BENEATH = 1, 1

# include/uapi/linux/landlock.h: how many rights each version of the interface knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_READ = _READ_FILE | _READ_DIR

STARTS_NOTHING = 125
"""Exit status where the program was not started."""

_library = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """Return the version of the kernel's landlock(7); 0: it has none, or it is switched off."""
    return max(0, int(_library.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)))


def confine(rules: list[tuple[str | int, str]]) -> None:
    """Let this thread, and what it becomes, touch nothing of the disk but what the rules name.

    Raises:
        OSError: that cannot be had.
    """
    version = landlock_version()
    if version < 1:
        raise OSError(0, "the kernel has no Landlock (Linux 5.13 and newer have it)")
    handled = (1 << _RIGHTS[min(version, max(_RIGHTS))]) - 1
    rights = {"read": _READ, "run": _READ | _EXECUTE, "write": handled & ~_EXECUTE}
    ruleset = _call(_CREATE_RULESET, struct.pack("=Q", handled), 8, 0)
    for what, how in rules:
        try:
            descriptor = what if isinstance(what, int) else os.open(what, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        allowed = rights[how]
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            allowed &= _OF_FILES
        _call(_ADD_RULE, ruleset, _BENEATH, struct.pack("=Qi", allowed & handled, descriptor), 0)
        if descriptor != what:
            os.close(descriptor)
    if _library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs cannot be set")
    _call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _call(number: int, *arguments: int | bytes) -> int:
    given = [each if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    found = int(_library.syscall(number, *given))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def main(arguments: list[str]) -> None:
    """Become the program."""
    parent, number, confined, *command = arguments
    _library.prctl(_SET_DEATH_SIGNAL, int(number), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(STARTS_NOTHING)
    if confined:
        given = json.loads(confined)
        try:
            confine(given["rules"])
            for descriptor, wanted in given["moved"]:
                os.dup2(descriptor, wanted)
                os.close(descriptor)
        except OSError as error:
            sys.stderr.write(f"it cannot be confined: {error.strerror}\n")
            sys.exit(STARTS_NOTHING)
    try:
        os.execv(command[0], command)  # noqa: S606 - it is what this is for
    except OSError as error:
        hint = " (confined, it cannot be a script, nor start other programs)" if confined else ""
        sys.stderr.write(f"{command[0]} cannot be run: {error.strerror}{hint}\n")
        sys.exit(STARTS_NOTHING)


if __name__ == "__main__":
    main(sys.argv[1:])
