"""Environment variables that hold a whole number, checked before a library trips over them."""

from __future__ import annotations

import os

from stdiff.runtime.errors import InputError

# The end of the year 9999, after which Python knows no date.
_LAST_SECOND = 253_402_300_799
# What `torchrun` sets for each of the processes that train together.
_LAUNCHED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


def check_environment() -> None:
    """Refuse nonsense that any command, or a library it uses, might read.

    Raises:
        InputError: a variable is not a whole number in its range.
    """
    world_size()
    _whole_number("SOURCE_DATE_EPOCH", 0, "seconds since 1970", most=_LAST_SECOND)


def world_size() -> int:
    """Number of processes that a launcher has started to train together; 1 without a launcher.

    Raises:
        InputError: ``WORLD_SIZE`` is not a number of processes.
    """
    return _whole_number("WORLD_SIZE", 1, "a number of processes")


def check_launched() -> None:
    """Check what a launcher says of this process where it has started several.

    Raises:
        InputError: a variable is missing or out of range.
    """
    if missing := [name for name in _LAUNCHED if not os.environ.get(name)]:
        raise InputError(
            f"WORLD_SIZE is {world_size()}, but {', '.join(missing)} not set in the environment; "
            "start with torchrun or set training.num_processes, else unset WORLD_SIZE"
        )
    _whole_number("RANK", 0, "the number of this process", most=world_size() - 1)
    _whole_number("MASTER_PORT", 1, "a port", most=65_535)


def _whole_number(name: str, least: int, what: str, most: int | None = None) -> int:
    text = os.environ.get(name, str(least))
    # Not int() alone, which takes blanks, signs, underscores and digits of other scripts.
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else least - 1
    if number < least or (most is not None and number > most):
        upper = "" if most is None else f" to {most}"
        raise InputError(
            f"{name}={text} in the environment: expected {what}, a whole number from {least}"
            f"{upper or ' on'}; correct or unset it"
        )
    return number
