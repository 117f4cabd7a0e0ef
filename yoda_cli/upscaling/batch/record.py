"""What is said of a finished picture: a JSON record, and a line for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from yoda_cli.files import counted, digest_of
from yoda_cli.models.model import Model
from yoda_cli.upscaling.batch.inputs import STREAM
from yoda_cli.upscaling.picture import Finished

SCHEMA = 2  # of a line of --json


def record_of(done: Finished, model: Model) -> dict[str, Any]:
    """What ``--json`` says of a picture; docs/folders.md has the fields."""
    result = done.result
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "status": "done",
        "input": str(done.source),
        "output": str(done.target),
        "source_sha256": done.sha256,
        "sha256": "" if done.target == STREAM else digest_of(done.target),
        "model": model.name,
        "width": done.size[0],
        "height": done.size[1],
        "frames": done.frames,
        "seed": done.settings.sampling.seed,
        "denoise": done.settings.sampling.strength,
        "fidelity": done.settings.sampling.fidelity,
        "planned_calls": result.planned_calls,
        "calls": result.calls,
        "dense_calls": result.dense_calls,
        "blocks": result.blocks,
        "lower_bound": result.lower_bound,
        "forecast_seconds": round(result.forecast_seconds, 3),
        "seconds": round(result.seconds, 3),
        "peak_mb": round(done.peak_bytes / 1e6),
        "device": str(model.device),
        "precision": str(model.precision).removeprefix("torch."),
        "runtime": " ".join(model.software),
        "notices": list(done.notices),
    }
    if result.regions:
        steps = [len(region.times) for region in result.regions]
        record["regions"] = {
            "chain": len(done.settings.sampling.timesteps) - 1, "count": len(steps), "steps": steps,
            "left_early": sum(region.left for region in result.regions),
        }  # fmt: skip
    if result.spent is not None:
        bent = result.spent
        record["budget"] = {
            "exponent": bent.exponent, "weight": bent.weight, "forecast_share": bent.share,
        }  # fmt: skip
    if result.recovered:
        record["out_of_memory"] = asdict(result.recovered)
    return record


def line_of(record: Mapping[str, Any]) -> str:
    """The same for a person, in one line."""
    frames = f", {record['frames']} frames" if record["frames"] > 1 else ""
    calls, dense = record["calls"], record["dense_calls"]
    tiles = f"{calls} of {counted(dense, 'tile')}" if dense > calls else counted(calls, "tile")
    device = str(record["device"]).split(":")[0]
    line = (
        f"{record['width']}×{record['height']}{frames}, {tiles} computed, "
        f"{record['seconds']:.1f} s on {device}"
    )
    if "regions" in record:
        steps, chain = record["regions"]["steps"], record["regions"]["chain"]
        each = f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
        line += f"; {each} of {chain} steps each"
    if "budget" in record:
        bent = record["budget"]
        weight = f"{bent['weight']:.2f}·" if bent["weight"] < 1 else ""
        line += (
            f"; budget: {weight}A^{bent['exponent']:.2f}, l = {record['lower_bound']:.3g}, "
            f"forecast {bent['forecast_share']:.2f} of the dense time"
        )
    if "out_of_memory" in record:
        went = ", ".join(f"{v} {k.replace('_', ' ')}" for k, v in record["out_of_memory"].items())
        line += f"; memory ran out: {went}"
    return line
