"""What can be refused before torch is loaded: inputs that are not there, names that nothing has.

The library checks everything again, and more; this only makes the answer quick.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from yoda_cli.cli import _names
from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.errors import InputError, NotFoundError, UsageError, WeightsError, YodaError
from yoda_cli.files import real
from yoda_cli.files.paths import is_file, is_folder, is_there
from yoda_cli.upscaling.checks import TASK_NAMES, check_options, named_scale

ADDRESS = re.compile(r"(https?|ftp|s3|gs):/+", re.IGNORECASE)
CHECKPOINTS = (".safetensors", ".pth", ".pt", ".ckpt")


def check(inputs: Sequence[Path], files_from: Path | None, options: UpscaleOptions) -> None:
    """Refuse what cannot be meant. Raises the errors that the run itself would raise later."""
    if not inputs and files_from is None:
        raise UsageError("no pictures were named; give files or folders: yoda upscale photo.jpg")
    check_inputs(inputs)
    check_names(options)
    check_options(options)


def check_size(path: Path, options: UpscaleOptions) -> None:
    """A picture alone may become as large as was asked."""
    asked = (options.width, options.height, options.short_side, options.min_size)
    if any(asked) and str(path) != "-":
        from yoda_cli.images import peek

        try:
            header = peek(path)
        except YodaError:  # the run says it
            return
        named_scale(path, options, (header.width, header.height), 1)


def check_output(inputs: Sequence[Path], output: Path | None) -> None:
    """No folder is read from and written to."""
    if output is None:
        return
    for path in inputs:
        try:
            same = is_folder(path) and real(path) == real(output)
        except (OSError, ValueError):
            continue  # the run says why
        if same:
            raise UsageError(f"{path} is an input folder; give another one as output")


def check_inputs(inputs: Sequence[Path]) -> None:
    """Every input is there, or may match: a pattern, ``-``."""
    for path in inputs:
        name = str(path)
        if found := ADDRESS.match(name):
            address = f"{found[1]}://{name[found.end() :]}"
            raise InputError(f"{address}: addresses are not fetched; download the picture first")
        if name == "-" or glob.has_magic(name):
            continue
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"no such file: {name}{beside(path)}") from None
        except (OSError, ValueError):
            continue  # the run says why it cannot be read


def beside(path: Path) -> str:
    """A name in the same folder that is nearly this one."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except PermissionError:
        return "; its folder may not be read"
    except OSError:
        return ""
    close = _names.nearest(path.name, names, likeness=0.8) if names else ""
    return f"; {close}" if close.startswith("did you mean") else ""


def check_names(options: UpscaleOptions) -> None:
    """Model, attention source, sampler, device, precision and task are names that exist."""
    check_model_name(options.model)
    if options.where is not None:
        check_model_name(options.where)
    judge = options.regressor
    if judge is not None and is_folder(Path(judge)):
        raise WeightsError(f"{judge} is a folder; --regressor takes the file of a gain regressor")
    if judge is not None and not is_file(Path(judge)):
        raise WeightsError(f"no such gain regressor: {judge}{beside(Path(judge))}")
    one_of("sampler", options.sampler, SAMPLERS)
    one_of("task", options.task, TASK_NAMES)
    one_of("precision", options.precision, _names.PRECISIONS)
    one_of("device", re.sub(r":\d+$", "", options.device), _names.DEVICES)
    source = options.attention
    if source is not None and source not in _names.SOURCES and not is_there(Path(source)):
        if Path(source).suffix:
            raise NotFoundError(f"no such file: {source}{beside(Path(source))}")
        raise UsageError(
            f"unknown attention source {source!r}; "
            f"{_names.nearest(source, _names.SOURCES, other=', or a grey picture')}"
        )


def check_bench(
    sets: Sequence[str], model: str, peers: Sequence[str] | None, metrics: Sequence[str] | None
) -> None:
    """What ``yoda bench`` names is there: data sets, a model, peers, metrics."""
    from yoda_cli.weights import load_registry

    for name in sets:
        known = ("sample", *load_registry().datasets)
        if name.lower() in known or is_folder(Path(name)):
            continue
        if len(Path(name).parts) > 1:
            raise NotFoundError(f"no such folder: {name}{beside(Path(name))}")
        meant = _names.nearest(name.lower(), known, other=", or a folder")
        raise UsageError(f"unknown data set {name!r}; {meant}")
    check_model_name(model)
    for name in peers or ():
        if name not in (*_names.PEERS, *_names.SOURCES) and Path(name).suffix not in CHECKPOINTS:
            meant = _names.nearest(name, _names.PEERS, other=", or a file that spandrel reads")
            raise UsageError(f"unknown peer {name!r}; {meant}")
    for name in metrics or ():
        one_of("metric", name, _names.METRICS)


def check_model_name(model: str) -> None:
    """A model of the registry, or a file that is there."""
    if Path(model).suffix in CHECKPOINTS:
        if not is_file(Path(model)):
            raise WeightsError(f"no such checkpoint: {model}{beside(Path(model))}")
        return
    from yoda_cli.weights import load_registry

    load_registry().model(model)


def one_of(what: str, name: str | None, known: Collection[str]) -> None:
    """Refuse a name that is not known."""
    if name is not None and name not in known:
        raise UsageError(f"unknown {what} {name!r}; {_names.nearest(name, known)}")


def in_range(**values: tuple[int | None, int, int | None]) -> None:
    """Refuse a number outside of its bounds; each is (value, least, most or None)."""
    for name, (value, least, most) in values.items():
        if value is not None and not least <= value <= (value if most is None else most):
            allowed = f"{least} … {most}" if most is not None else f"{least} or more"
            raise UsageError(f"{name} {value} is not allowed; give {allowed}")
