"""Dynamic loss scaling for gradients computed in float16 (Micikevicius et al. 2018, Mixed Precision Training)."""

from dataclasses import dataclass


@dataclass
class DynamicLossScale:
    """The factor the loss is multiplied with so that small gradients survive float16.

    An overflow halves it and the step is not applied; `window` steps in a row without one double it. `patience`
    overflows in a row are no matter of the scale any more. The last three are counts of what happened so far.
    """

    scale: float
    factor: float = 2.0
    window: int = 1000
    patience: int = 50
    good_steps: int = 0
    overflows: int = 0
    overflows_in_a_row: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether a further overflow is not the scale's fault: it is as low as it gets, or out of patience."""
        return self.scale <= 1.0 or self.overflows_in_a_row + 1 >= self.patience

    def update(self, finite: bool) -> None:
        """Adapt to whether the last step's gradients were all finite."""
        if not finite:
            self.scale = max(self.scale / self.factor, 1.0)
            self.good_steps = 0
            self.overflows += 1
            self.overflows_in_a_row += 1
            return
        self.overflows_in_a_row = 0
        self.good_steps += 1
        if self.good_steps == self.window:
            self.scale *= self.factor
            self.good_steps = 0
