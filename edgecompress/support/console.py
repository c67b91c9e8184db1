"""rich's console for text of strangers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from edgecompress.visible import visible


class VisibleConsole(Console):
    """Draws whatever text it is given so that it can be seen. Colours and the movements of a bar stay."""

    def render_str(self, text: str, **styles: Any) -> Text:
        """The text as rich takes it; tables ask for its width here."""
        return super().render_str(visible(text), **styles)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is drawn, piece by piece."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
