"""The one way to print: whatever a command prints goes through `visible`, so that no caller can forget it.

What rich draws goes through `console.VisibleConsole`.
"""

from __future__ import annotations

import click

from edgecompress.visible import visible


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Prints to stdout, or with `err` to stderr, which is looked up at that moment."""
    click.echo(visible(text), err=err, nl=nl)
