"""``yoda doctor``: what this machine offers, and what is broken."""

from __future__ import annotations

from dataclasses import asdict

from yoda_cli.cli import _render
from yoda_cli.cli._options import CacheDir, Json, Offline, RegistryFile
from yoda_cli.cli._room import check_room
from yoda_cli.errors import WeightsError

MARKS = {True: "ok", False: "BROKEN", None: "-"}


def verdict(broken: int) -> str:
    """The last line for a person."""
    if broken:
        return f"Not ready: {broken} thing{'s' if broken > 1 else ''} to mend, named below."
    return "Ready: yoda upscale photo.jpg works with the models general and face."


def doctor(
    as_json: Json = False,
    offline: Offline = False,
    cache_dir: CacheDir = None,
    registry: RegistryFile = None,
) -> int:
    """Check Python, torch, devices, cache and weights; exit code 5 if something is broken."""
    check_room()
    from yoda_cli.reports.doctor import examine

    findings = examine()
    broken = [finding for finding in findings if finding.ok is False]
    if as_json:
        document = {"schema": 1, "ok": not broken, "findings": [asdict(f) for f in findings]}
        _render.document(document, indent=2)
    else:
        rows = [(finding.name, finding.value, MARKS[finding.ok]) for finding in findings]
        _render.table("", ("what", "found", ""), rows)
        _render.note(verdict(len(broken)))
    for finding in broken:
        _render.fault(f"{finding.name}: {finding.value}")
    return WeightsError.exit_code if broken else 0
