"""What a result was made with, in full: the settings as rows, and the command that repeats it."""

from __future__ import annotations

import shlex
from pathlib import Path

from yoda_cli.config import UpscaleOptions
from yoda_cli.models import Model
from yoda_cli.passes import sampler_name


def settings_of(model: Model, options: UpscaleOptions) -> list[tuple[str, object]]:
    """Every setting that decides the pixels, defaults filled in."""
    defaults = model.defaults
    settings: list[tuple[str, object]] = [
        ("model", options.model),
        ("scale", f"{options.scale if options.scale is not None else model.scale:g}"),
        ("attention", options.attention or defaults.attention),
        ("lower_bound", options.lower_bound or defaults.lower_bound),
        ("steps", min(options.steps or defaults.steps, model.backbone.schedule.num_steps)),
        ("sampler", sampler_name(model, options)),
        ("seed", options.seed),
        ("fidelity", model.fidelity(options)),
        ("denoise", options.denoise or 0.0),
        ("device", model.device),
        ("precision", PRECISION_NAMES[str(model.precision).removeprefix("torch.")]),
        ("tile", "auto" if options.tile is None else options.tile),
    ]
    if model.parts is not None:
        version = model.parts.version
        settings += [
            ("task", options.task or "sr"),
            ("cfg", version.cfg if options.cfg is None else options.cfg),
            ("prompt", version.prompt if options.prompt is None else options.prompt),
            ("negative_prompt", version.negative_prompt if options.negative_prompt is None
             else options.negative_prompt),
            ("strength", 1.0 if options.strength is None else options.strength),
            ("attention_from", options.attention_from or "stage1"),
        ]  # fmt: skip
        settings += [] if options.stage1 is None else [("stage1", options.stage1)]
    if options.heads is not None:
        settings.append(("heads", options.heads))
    return settings


PRECISION_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def command(source: Path, target: Path, model: Model, options: UpscaleOptions) -> str:
    """A line for the shell that makes the same picture again."""
    words = ["yoda", "upscale", str(source), "-o", str(target)]
    for name, value in settings_of(model, options):
        words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--faithful"] if options.faithful else []
    words += [] if options.skip else ["--no-skip"]
    return shlex.join(words)
