"""The one error a user is meant to read."""

from __future__ import annotations


class SteerlabError(ValueError):
    """Bad input, told in one sentence: what was given, what was expected, what to do.

    The command line prints the sentence and exits with code 2; nothing is left half-written. Line breaks, control characters and half
    characters, which it may quote from data, are shown escaped: it is one line, and can be printed anywhere.
    """

    def __str__(self) -> str:
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__())


class Busy(SteerlabError):
    """Another process holds what was asked for; it may be asked for again later."""
