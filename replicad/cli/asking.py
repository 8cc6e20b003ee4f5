"""Asking a person, or a script, for what must not stand in the process list."""

from __future__ import annotations

import sys

import click

LINE_CHARS_MAX = 1024


def secret(what: str, *, twice: bool = False) -> str:
    """A password or code: typed unseen on a terminal (``twice`` to be sure), otherwise the next line of standard input; empty if there is none."""
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, confirmation_prompt=twice, err=True))
    return sys.stdin.readline(LINE_CHARS_MAX).rstrip("\r\n")
