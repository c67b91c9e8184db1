"""The loss of the student: its distance from the teacher and from the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecompress.recipe import Distill, Train
from edgecompress.support.user_code import is_function_spec
from edgecompress.train.losses import Loss, imitation, label_loss, user_loss
from edgecompress.train.output_kinds import OutputKind
from edgecompress.train.train_data import Batch


def likeness(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error over the teacher's mean square: 1 for a student that says nothing but zeros.

    After Romero et al., FitNets, equation 3, divided so that layers of all sizes count alike.
    """
    student, teacher = student.float(), teacher.float()
    return F.mse_loss(student, teacher) / teacher.square().mean().clamp(min=1e-12)


class DistillationLoss:
    """The mean over outputs of alpha * teacher's part + (1 - alpha) * labels' part, and feature_weight * mean over
    pairs of `likeness`.

    An output without labels has the teacher's part alone, with weight 1. A loss of the user's (`task`), which sees all
    outputs and labels, takes the place of the labels' parts, also without labels. outputs: what each of the model's
    outputs is; None for one that nothing is learned from. The student's module gives its outputs and, behind them, the
    values that stand opposite to `features` of the teacher.
    """

    def __init__(
        self,
        teacher: nn.Module,
        settings: Distill,
        outputs: Sequence[OutputKind | None],
        *,
        features: Sequence[str] = (),
        task: Loss | None = None,
    ) -> None:
        self.teacher, self.settings, self.outputs = teacher.eval(), settings, tuple(outputs)
        self.features, self.task = tuple(features), task

    def __call__(self, outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Tensor:
        """The loss, a scalar, of the outputs for a batch."""
        return torch.stack(list(self.parts(outputs, labels, batch).values())).sum()

    def parts(self, outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Mapping[str, Tensor]:
        """What each output adds to the loss; under "task" what the user's own loss adds, and "features" likewise."""
        targets, captured = self._ask(batch)
        alpha, count = self.settings.alpha, len(self.outputs)
        kinds = [(place, kind) for place, kind in enumerate(self.outputs) if kind is not None]
        found: dict[str, Tensor] = {}
        for place, kind in kinds:
            given = batch.output_labels.get(kind.name) if place else labels
            has_task = self.task is not None or (kind.task is not None and given is not None)
            part = outputs[place].new_zeros((), dtype=torch.float32)
            if targets is not None and (alpha > 0 or not has_task):
                near = imitation(kind, outputs[place], targets[place], self.settings.temperature)
                part = part + (alpha if has_task else 1.0) * near
            if self.task is None and has_task and given is not None and alpha < 1:
                part = part + (1 - alpha) * label_loss(kind, outputs[place], given)
            if len(kinds) > 1 and kind.form in ("logits", "shares"):  # squared errors are relative already
                part = part / kind.spread.to(part.device)
            found[kind.name] = part / len(kinds)
        if self.task is not None and alpha < 1:
            found["task"] = (1 - alpha) * self.task(outputs[:count], labels, batch)
        if self.features:
            pairs = zip(outputs[count:], self.features, strict=True)
            far = [likeness(student, captured[name]) for student, name in pairs]
            found["features"] = self.settings.feature_weight * torch.stack(far).mean()
        return found

    def _ask(self, batch: Batch) -> tuple[Sequence[Tensor] | None, Mapping[str, Tensor]]:
        """The teacher's outputs, None where nobody asks for them, and its values that are imitated."""
        needed = self.settings.alpha > 0 or any(kind is not None and kind.task is None for kind in self.outputs)
        if not needed and not self.features:
            return None, {}
        self.teacher.to(batch.inputs[0].device)
        with torch.no_grad():
            if self.features:
                outputs, captured = self.teacher(*batch.inputs, capture=self.features)
                return outputs, captured
            return self.teacher(*batch.inputs), {}


def own_loss(training: Train) -> Loss | None:
    """The function of the user's that [train] loss names; None where it names a loss of ours."""
    return user_loss(training.loss) if is_function_spec(training.loss) else None
