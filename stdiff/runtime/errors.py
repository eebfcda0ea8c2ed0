"""Errors whose message is all the user needs; light to import."""


class InputError(ValueError):
    """Wrong input: the message says what, where, and how to correct it."""


class UnusableFile(InputError):
    """A step's file is damaged or not the expected one; rerun the step that made it."""
