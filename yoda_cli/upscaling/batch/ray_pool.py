"""Calls on Ray actors: given out as actors come free, done again when an actor is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from yoda_cli.errors import DeviceError, YodaError
from yoda_cli.upscaling.picture import Item

TRIES = 3  # of one call: a picture that ends three actors is to blame itself
IN_FLIGHT = 2  # tasks an actor holds: one to do, one to follow


@dataclass(frozen=True)
class Call:
    """A method of some actor; ``then`` gets the reference of what it returned."""

    item: Item
    method: str
    arguments: tuple[Any, ...]
    then: Callable[[Any], None]
    tries: int = 0


class Pool:
    """Actors, what they are doing, and what waits; gone items' calls are dropped."""

    def __init__(self, ray: Any, make: Callable[[], Any], count: int) -> None:
        self.ray, self.make = ray, make
        self.actors = [make() for _ in range(count)]
        self.waiting: deque[Call] = deque()
        self.doing: dict[Any, tuple[int, Any, Call]] = {}
        self.gone: set[Item] = set()

    def run(self, on_failure: Callable[[Item, YodaError], None]) -> None:
        """Until nothing waits and nothing is being done."""
        while self.waiting or self.doing:
            self._fill()
            if not self.doing:
                continue
            (reference,), _ = self.ray.wait(list(self.doing), num_returns=1)
            self._take(reference, on_failure)

    def _fill(self) -> None:
        for _ in range(IN_FLIGHT):
            for index, actor in enumerate(self.actors):
                held = sum(place == index for place, _, _ in self.doing.values())
                if not self.waiting or held >= IN_FLIGHT:
                    continue
                call = self.waiting.popleft()
                if call.item not in self.gone:
                    reference = getattr(actor, call.method).remote(*call.arguments)
                    self.doing[reference] = index, actor, call

    def _take(self, reference: Any, on_failure: Callable[[Item, YodaError], None]) -> None:
        errors = self.ray.exceptions
        index, actor, call = self.doing.pop(reference)
        lost = (errors.RayActorError, errors.ObjectLostError, errors.WorkerCrashedError)
        try:
            self.ray.get(reference)
            call.then(reference)
        except lost:
            if self.actors[index] is actor:
                self.actors[index] = self.make()
            if call.tries + 1 >= TRIES:
                self.gone.add(call.item)
                text = f"workers were lost {TRIES} times on {call.item.source}"
                on_failure(call.item, DeviceError(text))
            else:
                self.waiting.appendleft(replace(call, tries=call.tries + 1))
        except (YodaError, errors.RayTaskError) as error:
            if call.item not in self.gone:
                self.gone.add(call.item)
                cause = getattr(error, "cause", error)
                if not isinstance(cause, YodaError):  # a surprise in an actor: this picture's only
                    cause = YodaError(f"{call.item.source}: internal error: {cause!r}")
                on_failure(call.item, cause)
