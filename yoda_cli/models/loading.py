"""From a model's name to a network ready to run on a device, in a precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.devices.device import pick_device, pick_precision
from yoda_cli.devices.memory import keep_freed
from yoda_cli.errors import UsageError, WeightsError, need
from yoda_cli.files.paths import is_file
from yoda_cli.models import BACKBONES
from yoda_cli.models.backbone import Backbone
from yoda_cli.models.base import build_config
from yoda_cli.models.checkpoint import defaults_of, has_header, load_checkpoint
from yoda_cli.models.face_detector import DETECTOR, FaceDetector
from yoda_cli.models.feedforward import (
    FEEDFORWARD,
    ONE_CALL,
    FeedForward,
    load_feedforward,
)
from yoda_cli.models.latent.catalog import FAMILIES
from yoda_cli.models.latent.settings import TASKS, FamilySettings
from yoda_cli.models.model import FaceHelp, Model, wrong_default
from yoda_cli.models.published import is_diffusion, load_reference, reference_of
from yoda_cli.models.refined import Refined
from yoda_cli.models.srdiff import SRDiff
from yoda_cli.weights import Cache, ModelEntry, Registry, Watch, load_registry, obtain
from yoda_cli.weights.guesses import hint
from yoda_cli.weights.registry import mistake
from yoda_cli.weights.tensors import read_tensors

#: Published networks were trained without masks: diffuse everywhere, along the whole chain.
PUBLISHED = SampleDefaults(attention="uniform", lower_bound=1.0, steps=1 << 30, sampler="ddpm")
REFINER = "general"  # diffuses on top of other people's networks
FACE_MODEL = "face"  # restores one face, upright on a square
PICKLES = (".pth", ".pt", ".ckpt")


def find_entry(options: UpscaleOptions) -> ModelEntry | None:
    """The registry's entry of the model that ``options`` name; None for a checkpoint file."""
    is_file = Path(options.model).suffix in (".safetensors", *PICKLES)
    return None if is_file else load_registry().model(options.model)


def find_model(options: UpscaleOptions, watch: Watch | None = None) -> Model:
    """The model ``options`` name: one of the registry, or a checkpoint file.

    Downloads what is missing; ``watch`` is told what, how large, under which licence, and to where.
    """
    watch = watch or Watch()
    pick_device(options.device)  # refuse before a long download
    path = Path(options.model)
    if path.suffix == ".safetensors" and has_header(path):
        return load_model(path, path.stem, options)
    if path.suffix in (".safetensors", *PICKLES):
        return foreign_model(path, path.stem, options)
    registry = load_registry()
    entry = registry.model(options.model)
    if entry.bundled:
        return load_model(entry.path, options.model, options)
    model = published_model(entry, registry, options, watch)
    if entry.noncommercial:
        watch.say(f"{entry.name} is not for commercial use: {entry.licence}")
    return model


def with_faces(model: Model, options: UpscaleOptions, watch: Watch | None = None) -> Model:
    """``model`` with what finds and restores the faces in its pictures; the detector is fetched."""
    path = obtain(DETECTOR, load_registry(), Cache.default(), watch or Watch())
    own = UpscaleOptions(
        model=FACE_MODEL, device=options.device, precision=options.precision, exact=options.exact
    )
    return replace(model, faces=FaceHelp(FaceDetector(path), find_model(own, watch)))


def with_refinement(model: Model, options: UpscaleOptions, watch: Watch | None = None) -> Model:
    """``model``, which makes its picture in one call, with our diffusion on top."""
    theirs = model.backbone
    if not isinstance(theirs, FeedForward):
        raise UsageError(
            f"model {model.name} diffuses by itself; --refine is for networks of one call"
        )
    if model.scale == 1:
        raise UsageError(
            f"model {model.name} keeps the size of a picture; --refine needs one that enlarges"
        )
    own = replace(options, model=REFINER, refine=False, faces=False, where=None)
    ours = find_model(own, watch)
    assert isinstance(ours.backbone, SRDiff)
    in_fp32 = model.precision == torch.float32 != ours.precision
    refined = Refined(theirs, ours.backbone, in_fp32=in_fp32)
    return replace(ours, name=f"{model.name}-refined", backbone=refined)


def with_other(
    model: Model, name: str, options: UpscaleOptions, watch: Watch | None = None
) -> Model:
    """``model`` and the one called ``name``, whose pictures are to be blended."""
    other = find_model(replace(options, model=name), watch)
    for one in (model, other):
        if one.family is not None:
            raise UsageError(f"--where takes models of pixels; {one.name} works on latents")
    return replace(model, name=f"{model.name}-{other.name}", where=other)


def published_model(
    entry: ModelEntry, registry: Registry, options: UpscaleOptions, watch: Watch
) -> Model:
    """A model whose weights others published, with YODA's masks applied while sampling."""
    cache = Cache.default()
    defaults = SampleDefaults(entry.attention, entry.lower_bound, entry.steps, entry.sampler)
    if wrong := wrong_default(defaults):
        raise mistake(entry, *wrong)
    if entry.backbone in FAMILIES:
        return latent_model(entry, registry, cache, defaults, options, watch)
    if entry.backbone not in (*BACKBONES, FEEDFORWARD):
        known = ", ".join((*BACKBONES, FEEDFORWARD, *FAMILIES))
        raise mistake(entry, "backbone", f"{entry.backbone!r} is not one of {known}")
    paths = {role: obtain(name, registry, cache, watch) for role, name in entry.files.items()}
    if entry.backbone == FEEDFORWARD:
        model = foreign_model(paths["network"], options.model, options)
        if model.scale != entry.scale:
            raise WeightsError(f"{paths['network']} enlarges by {model.scale}, not {entry.scale}")
        return model
    made = put_on_device(load_reference(paths["network"]), options.model, defaults, options)
    return replace(made, files=(paths["network"],))


def latent_model(
    entry: ModelEntry, registry: Registry, cache: Cache, defaults: SampleDefaults,
    options: UpscaleOptions, watch: Watch,
) -> Model:  # fmt: skip
    """A model of latents: only the files that this run will read are fetched."""
    try:
        settings = build_config(FamilySettings, entry.settings)
    except ValueError as error:
        raise mistake(entry, "settings", str(error)) from error
    need("diffusers", "diffbir")
    if options.compile:
        raise UsageError(f"--compile does nothing for {entry.name}")
    device = pick_device(options.device)
    precision = pick_precision("fp32" if options.exact else options.precision, device)
    family = FAMILIES[entry.backbone]
    roles, wanted, first = latent_roles(entry, settings, options)
    own = (
        {}
        if first in (None, "none")
        else {"stage1": _stage_one(str(first), registry, cache, watch)}
    )
    paths = {role: obtain(entry.files[role], registry, cache, watch) for role in roles}
    files = {("stage1" if role == wanted else role): path for role, path in paths.items()} | own
    made = family.make(entry.name, settings, files, device, precision)
    defaults = replace(defaults, fidelity=settings.fidelity)
    card = {
        "about": entry.summary,
        "licence": entry.licence,
        "source": entry.source,
        "files": {role: path.name for role, path in files.items()},
    }
    read = tuple(files[role] for role in family.roles)
    return Model(
        options.model, made.net, defaults, device, precision, card, made, entry.scale, files=read
    )  # fmt: skip


def latent_roles(
    entry: ModelEntry, settings: FamilySettings, options: UpscaleOptions
) -> tuple[list[str], str, str | None]:
    """The roles whose files a run reads, that of the task's restorer, and the one asked for."""
    family = FAMILIES[entry.backbone]
    fidelity = settings.fidelity if options.fidelity is None else options.fidelity
    optional = family.optional + (family.with_fidelity if fidelity > 0 else ())
    roles = [*family.roles, *(role for role in optional if role in entry.files)]
    wanted = TASKS[options.task or "sr"]
    if options.stage1 is None and wanted in entry.files:
        roles.append(wanted)
    elif options.stage1 is None and options.task is not None:
        raise UsageError(f"model {entry.name} has no stage one for --task {options.task}")
    return roles, wanted, options.stage1


def files_needed(options: UpscaleOptions) -> list[str]:
    """The registry's files that the model ``options`` name is made of; opens no connection."""
    entry, registry = find_entry(options), load_registry()
    names = [DETECTOR] if options.faces else []
    if options.where is not None:
        names += files_needed(replace(options, model=options.where, where=None, faces=False))
    if entry is None or entry.bundled:
        return names
    if entry.backbone not in FAMILIES:
        return [*entry.files.values(), *names]
    try:
        settings = build_config(FamilySettings, entry.settings)
    except ValueError as error:
        raise mistake(entry, "settings", str(error)) from error
    roles, _, first = latent_roles(entry, settings, options)
    names = [*(entry.files[role] for role in roles), *names]
    if first not in (None, "none") and not is_file(Path(str(first))):
        names.append(restorer_named(str(first), registry))
    return names


def _stage_one(name: str, registry: Registry, cache: Cache, watch: Watch) -> Path:
    """A restorer's file: one of the registry, or any on disk."""
    path = Path(name)
    return path if is_file(path) else obtain(restorer_named(name, registry), registry, cache, watch)


def restorer_named(name: str, registry: Registry) -> str:
    """The registry's file of a stage one."""
    restorers = {
        file
        for model in registry.models.values()
        for role, file in model.files.items()
        if role in TASKS.values()
    }
    known = {alias: file for file in restorers for alias in (file, *registry.files[file].aliases)}
    if name not in known:
        raise UsageError(f"no restorer {name!r}: give a file, none, or a name of the registry; "
                         f"{hint(name, known)}")  # fmt: skip
    return known[name]


def foreign_model(path: Path, name: str, options: UpscaleOptions) -> Model:
    """The network in other people's file: SR3, SRDiff, or any single-image one of spandrel's."""
    state = read_tensors(path)
    if is_diffusion(state):
        made = put_on_device(reference_of(state, str(path)), name, PUBLISHED, options)
        return replace(made, files=(path,))
    found = load_feedforward(state, path, options)
    return put_on_device(found.backbone, name, ONE_CALL, options, found.precision)


def load_model(path: Path, name: str, options: UpscaleOptions) -> Model:
    """The network in one of our checkpoint files, on the device and in the precision asked for."""
    backbone, header = load_checkpoint(path)
    made = put_on_device(backbone, name, defaults_of(header, path), options)
    return replace(made, card=header.card, files=(path,))


def put_on_device(
    backbone: Backbone, name: str, defaults: SampleDefaults, options: UpscaleOptions,
    settled: torch.dtype | None = None,
) -> Model:  # fmt: skip
    """A network on its device, channels last, its weights in the precision they are used in.

    With a ``settled`` precision they stay fp32 and are cast by autocast, operation by operation:
    other people's networks hold parameters that half precision does not bear. In fp32 their
    channels stay first: sums in the order in which their own code makes them.
    """
    device = pick_device(options.device)
    asked = "fp32" if options.exact else options.precision
    precision = settled or pick_precision(asked, device)
    if device.type == "cpu":
        keep_freed()
    order = torch.contiguous_format if settled is torch.float32 else torch.channels_last
    backbone.to(device, memory_format=order)  # type: ignore[call-overload]
    if settled is None:
        for parameter in backbone.parameters():  # buffers stay fp32
            parameter.data = parameter.data.to(precision)
    if options.compile:
        if options.exact:
            raise UsageError("--exact promises bytes that --compile may change; give one of them")
        backbone.compile_denoise(device)
    return Model(name, backbone, defaults, device, precision)
