"""What is seen of each picture of ``yoda upscale`` while it is made: progress, dump, report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from yoda_cli.config import WriteOptions
from yoda_cli.errors import UsageError

if TYPE_CHECKING:
    from yoda_cli.cli._render_bars import Overall
    from yoda_cli.files import Check
    from yoda_cli.files.overwriting import Outputs
    from yoda_cli.models.model import Model
    from yoda_cli.reports.page import Watcher
    from yoda_cli.upscaling.picture import Finished, Item
    from yoda_cli.upscaling.result import Observer


@dataclass(frozen=True)
class Inside:
    """What is kept of how a picture came about; ``named`` is (attention, masks, steps)."""

    dump: Path | None
    named: tuple[bool, bool, bool]
    every: int
    report: Path | None

    def __bool__(self) -> bool:
        return self.dump is not None or self.report is not None


def claim_report(report: Path | None, pictures: int, outputs: Outputs) -> Check | None:
    """Refuse a page that would stand on something else; how to judge it again."""
    if report is None:
        return None
    from yoda_cli.reports.page import is_page

    if pictures != 1:
        raise UsageError("--report is about one picture; name one")
    return outputs.claim(report, "the report", is_page)


class Watchers:
    """Progress, dump and report of one picture after another."""

    def __init__(
        self, inside: Inside, writing: WriteOptions, outputs: Outputs, report_check: Check | None,
        model: Model,
    ) -> None:  # fmt: skip
        self.inside, self.writing, self.model = inside, writing, model
        self.outputs, self.report_check = outputs, report_check
        self.taken: set[str] = set()
        self.current: dict[Path, Watcher] = {}

    @contextmanager
    def observing(self, item: Item, run: Overall) -> Iterator[Observer]:
        """The observer of one picture of ``run`` while it is computed."""
        from yoda_cli.upscaling.progress import PictureProgress

        inside = self.inside
        progress = PictureProgress.of(
            item, self.model, partial(run.at, item.source), partial(run.foresee, item.source)
        )
        if not inside:
            yield progress.observer
            return
        from yoda_cli.reports.inspection import Wanted, dump_folder
        from yoda_cli.reports.page import Watcher

        wanted = Wanted(*inside.named, every=inside.every)
        dump = inside.dump and dump_folder(inside.dump, item.source, self.taken)
        watcher = Watcher.of(dump, wanted, inside.report, self.report_check, self.outputs)
        self.current[item.source] = watcher
        yield replace(
            progress.observer, on_pass=watcher.on_pass, on_step=watcher.on_step, whole=True
        )

    def finish(self, done: Finished) -> None:
        """Write what is written at the end."""
        if watcher := self.drop(done.source):
            watcher.finish(done, self.model, self.writing)

    def drop(self, source: Path) -> Watcher | None:
        """Let go of what was kept of a picture."""
        return self.current.pop(source, None)
