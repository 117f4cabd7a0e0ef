"""Weights and data sets by name: registry, cache, download. Knows no torch and no diffusion."""

from yoda_cli.weights.cache import Cache, DamagedError, Record
from yoda_cli.weights.download import fetch
from yoda_cli.weights.entries import DatasetEntry, FileEntry, ModelEntry
from yoda_cli.weights.inventory import obtain
from yoda_cli.weights.network import is_offline
from yoda_cli.weights.registry import Registry, load_registry, registry_path
from yoda_cli.weights.transfer import Watch

__all__ = [
    "Cache",
    "DamagedError",
    "DatasetEntry",
    "FileEntry",
    "ModelEntry",
    "Record",
    "Registry",
    "Watch",
    "fetch",
    "is_offline",
    "load_registry",
    "obtain",
    "registry_path",
]
