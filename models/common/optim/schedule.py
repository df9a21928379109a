"""The learning rate of each step, computed on the host and handed to the train step as an input."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then polynomial decay to `end_learning_rate`, continuous where they meet.

    peak: highest learning rate; total_steps: optimizer steps of the whole run; warmup_steps: how many of them warm up;
    power: 1 decays linearly. With power 1 and end 0 this is transformers' `get_linear_schedule_with_warmup`.
    """

    peak: float
    total_steps: int
    warmup_steps: int = 0
    end_learning_rate: float = 0.0
    power: float = 1.0

    def __call__(self, step: int) -> float:
        """The learning rate for the step after `step` completed ones."""
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        progress = min(1.0, (step - self.decay_start) / max(1, self.total_steps - self.decay_start))
        return (self.peak - self.end_learning_rate) * (1.0 - progress) ** self.power + self.end_learning_rate

    @property
    def decay_start(self) -> int:
        """The step from which the decay counts."""
        return self.warmup_steps


@dataclass(frozen=True)
class LegacySchedule(Schedule):
    """As the original (official/nlp/Bert): the decay counts from the first step on, warm-up or not.

    So where the warm-up ends the learning rate falls at once, with power 5 after a tenth of the steps to 59 % of
    `peak`: (1 - 0.1)^5.
    """

    @property
    def decay_start(self) -> int:
        """The first step."""
        return 0


SCHEDULES = {"continuous": Schedule, "legacy": LegacySchedule}
