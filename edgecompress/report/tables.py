"""How results are shown: tables of at most 80 columns, in terminals and in notebooks."""

from __future__ import annotations

import abc
import io
from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgecompress.support.console import VisibleConsole

WIDTH = 80
IN_WORDS = {"dynamic": "int8 weights, float activations"}  # the others say it themselves


class Shown(abc.ABC):
    """Base class of results that show themselves as tables, in terminals and in notebooks.

    Dataclasses of this kind have repr=False.
    """

    @abc.abstractmethod
    def __rich__(self) -> RenderableType: ...

    def __str__(self) -> str:
        return as_text(self.__rich__())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self.__rich__())


def as_text(renderable: RenderableType) -> str:
    """Plain text, no colours."""
    console = VisibleConsole(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def as_html(renderable: RenderableType) -> str:
    """One <pre> element with inline colours."""
    console = VisibleConsole(file=io.StringIO(), width=WIDTH, record=True, force_jupyter=False)
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def print_fitting(renderable: RenderableType) -> None:
    """Prints to stdout, in colour on a terminal."""
    console = VisibleConsole()
    console.print(renderable, width=min(WIDTH, console.width))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table. Columns that start with a space in `columns` hold numbers: they align right, and never break."""
    result = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    for name in columns:
        numbers = name.startswith(" ")
        result.add_column(name.strip(), justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
    for row in rows:
        result.add_row(*map(escape, row))
    return result


def in_words(encoding: str) -> str:
    """What an encoding means, where its name does not say it."""
    return IN_WORDS.get(encoding, encoding)


def number(value: float | None, form: str, missing: str = "-") -> str:
    """The formatted number, or what stands for a missing one."""
    return missing if value is None else format(value, form)
