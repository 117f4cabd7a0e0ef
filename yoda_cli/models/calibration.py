"""What the network costs on this machine: measured once, kept in the cache folder.

One network call on a window of p output pixels takes about ``call + pixel·p`` seconds, and
``shape`` more when its shape is new: CPU libraries prepare their kernels then. The encoder, the
loop around the network, and what is done once take seconds per output pixel. A GPU is measured
with care; of a CPU one small window is timed, and the runs themselves say the rest: ``pace`` is
the median of what the last of them took, over what these figures say. Figures that run after run
contradicts were taken in a busy moment, and are measured again.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from yoda_cli.arrays import threads
from yoda_cli.errors import OutputError, WeightsError
from yoda_cli.files import cache_folder, make_folder, write_atomically
from yoda_cli.files.notes import are_numbers, read_notes
from yoda_cli.models.model import Model
from yoda_cli.models.timing import ConditionOf, measure
from yoda_cli.tiling.cost import Costs

RECORD = "costs-7.json"
#: Shorter runs say nothing of the pace. Chosen: nobody waits for them. On a busy machine nine runs
#: of half, one and twice so long scatter alike, by 25 to 40 %
#: (`scripts/measure_constants.py TELLING_SECONDS`).
TELLING_SECONDS = 0.2
#: So many runs say the pace. Where one in eight is disturbed, forecasts of the others are 11 % away
#: with 5, 19 % with 2, and 10 are no better (`scripts/measure_constants.py RUNS`).
RUNS = 5
#: A pace beyond which, in all of them, the figures are dropped. At 1, 200 runs measure 7 times anew
#: without need; at 4 a machine three times as slow as measured is never measured again
#: (`scripts/measure_constants.py AGREED`).
AGREED = 2.0


def costs_of(model: Model, condition_of: ConditionOf | None = None, variant: str = "") -> Costs:
    """Measured now, or on an earlier run on this machine with this network.

    ``condition_of`` makes a condition of an LR image (or latent) in place of the network's own
    ``encode``; ``variant`` names what then costs differently.
    """
    key = _key(model, variant)
    if key not in _KNOWN:
        _KNOWN[key] = _kept_or_measured(key, model, condition_of)
    return _KNOWN[key]


def known_costs(model: Model, variant: str = "") -> Costs | None:
    """What was measured on an earlier run, None if there was none; nothing is run."""
    key = _key(model, variant)
    with contextlib.suppress(WeightsError, KeyError, TypeError, ValueError):
        return _KNOWN.get(key) or _costs_in(read_notes(cache_folder() / RECORD)[key])
    return None


def learn(model: Model, forecast: float, seconds: float, variant: str = "") -> None:
    """Let the next forecast follow a run that took ``seconds`` where ``forecast`` were expected.

    Most runs of a machine that was quiet when it was measured are as slow as its busy moments; of
    one that was busy all are faster. Either way the median follows, and where every run of the
    last disagrees by ``AGREED`` or more, all of it is measured anew by the next process.
    """
    if min(forecast, seconds) < TELLING_SECONDS:
        return
    costs, key = costs_of(model, variant=variant), _key(model, variant)
    paces = (*_PACES.get(key, ()), costs.pace * seconds / forecast)[-RUNS:]
    stale = len(paces) == RUNS and (min(paces) > AGREED or max(paces) < 1 / AGREED)
    _PACES[key], _KNOWN[key] = paces, replace(costs, pace=statistics.median(paces))
    with contextlib.suppress(WeightsError):
        _keep(cache_folder() / RECORD, key, None if stale else _KNOWN[key], paces)


def learn_around(model: Model, seconds: float, variant: str = "") -> None:
    """Keep what a latent took besides its diffusion, in a run that has just been learnt from."""
    costs, key = costs_of(model, variant=variant), _key(model, variant)
    _KNOWN[key] = replace(costs, around=seconds / costs.pace)
    with contextlib.suppress(WeightsError):
        _keep(cache_folder() / RECORD, key, _KNOWN[key], _PACES.get(key, ()))


def _key(model: Model, variant: str = "") -> str:
    net = model.backbone
    how = "compiled" if net.is_compiled else variant
    name = f"{type(net).__name__} {net.parameter_count} {how} {model.precision} {model.device}"
    machine = f"{platform.machine()} {platform.node()} {os.cpu_count()} {model.software[1]}"
    return f"{name} {machine} {threads()} threads"


_KNOWN: dict[str, Costs] = {}
_PACES: dict[str, tuple[float, ...]] = {}  # of the last runs


def forget() -> None:
    """What this process knows; the record stays."""
    _KNOWN.clear()
    _PACES.clear()


def _kept_or_measured(key: str, model: Model, condition_of: ConditionOf | None) -> Costs:
    try:
        record = cache_folder() / RECORD
    except WeightsError:  # no home, no cache: measured every time
        return measure(model, condition_of)
    with contextlib.suppress(KeyError, TypeError, ValueError):
        found = read_notes(record)[key]
        costs = _costs_in(found)
        _PACES[key] = tuple(float(pace) for pace in found["paces"])[-RUNS:]
        return costs
    costs = measure(model, condition_of)
    _keep(record, key, costs)
    return costs


def _costs_in(found: dict[str, Any]) -> Costs:
    costs = Costs(**found["costs"])
    if not are_numbers(asdict(costs).values()):
        raise ValueError("no costs")
    return costs


def _keep(record: Path, key: str, costs: Costs | None, paces: Sequence[float] = ()) -> None:
    """Beside what is there, or None: forgotten. A forecast is not worth an error."""
    kept = read_notes(record)
    if costs is None:
        kept.pop(key, None)
    else:
        kept[key] = {"costs": asdict(costs), "paces": paces}
    with contextlib.suppress(OutputError, TypeError):
        make_folder(record.parent)
        write_atomically(record, json.dumps(kept).encode())
