"""Knowledge distillation: a small model, the student, learns from the outputs of a large one, the teacher.

Torch is imported when `distill` is called, not before.
"""

from __future__ import annotations

from edgecompress.compress.distill.student import derive

__all__ = ["derive"]
