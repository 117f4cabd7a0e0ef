"""How much of a picture is done, from what an ``Observer`` hears. Shows nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from yoda_cli.models.model import Model
from yoda_cli.upscaling.forecast import passes_to
from yoda_cli.upscaling.picture import Item
from yoda_cli.upscaling.pipeline import pipeline_of
from yoda_cli.upscaling.result import Observer


@dataclass
class PictureProgress:
    """The share of a picture that is done, told after every call.

    ``foresee`` hears the forecast once: calls and seconds for all of its frames.
    """

    frames: int
    passes: int
    tell: Callable[[float], None]
    foresee: Callable[[int, float], None] = lambda calls, seconds: None
    plans: int = 0
    done: int = 0  # calls of the frame that is being made
    total: int = 0

    @staticmethod
    def of(
        item: Item, model: Model, tell: Callable[[float], None],
        foresee: Callable[[int, float], None] = lambda calls, seconds: None,
    ) -> PictureProgress:  # fmt: skip
        """For a picture that ``model`` will make."""
        scale = item.scale or float(model.scale)
        single = pipeline_of(model).one_pass
        passes = 1 if single else max(1, passes_to(scale, model.scale))
        return PictureProgress(item.frames, passes, tell, foresee)

    def plan(self, calls: int, seconds: float) -> None:
        """A pass begins: ``calls`` and ``seconds`` are left to the end of its frame."""
        if self.plans == 0:
            self.foresee(calls * self.frames, seconds * self.frames)
        if self.plans % self.passes == 0:
            self.done = 0
        self.plans += 1
        self.total = self.done + calls
        self.tell(self.share)

    def call(self) -> None:
        """One call more is done."""
        self.done += 1
        self.tell(self.share)

    @property
    def share(self) -> float:
        """From 0 to 1."""
        frame = max(0, self.plans - 1) // self.passes
        here = min(1.0, self.done / self.total) if self.total else 0.0
        return min(1.0, (frame + here) / self.frames)

    @property
    def observer(self) -> Observer:
        """What hears the plan and the calls, and no more."""
        return Observer(on_plan=self.plan, on_call=self.call)
