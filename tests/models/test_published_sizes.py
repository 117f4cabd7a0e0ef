"""Latent networks of the published sizes, as shapes without memory: what they will need is told."""

import pytest
import torch

from yoda_cli.errors import DeviceError
from yoda_cli.models.latent import components
from yoda_cli.models.latent.addsr import seesr_design
from yoda_cli.models.latent.components import Components
from yoda_cli.models.latent.controlled import ControlledUNet
from yoda_cli.models.latent.lending import Networks
from yoda_cli.models.latent.modulated import ModulatedDenoiser
from yoda_cli.models.latent.settings import FamilySettings
from yoda_cli.models.nets import ldm, seesr, stablesr
from yoda_cli.weights.structures import structures


def shapes(name):
    return {key: torch.empty(shape, device="meta") for key, shape in structures()[name].items()}


def make_stablesr():
    unet = ldm.infer_unet(shapes("diffbir_unet"))
    return ModulatedDenoiser(unet, stablesr.infer_encoder(shapes("stablesr_encoder")))


def make_addsr():
    parts = (seesr.infer_seesr(shapes(f"seesr_{part}")) for part in ("unet", "controlnet"))
    return ControlledUNet(seesr_design(*parts))


@pytest.mark.parametrize(
    ("make", "parts", "precision", "gigabytes"),
    [
        (make_stablesr, ("unet", "encoder"), torch.float32, "4.7"),
        (make_stablesr, ("unet", "encoder"), torch.bfloat16, "2.3"),
        (make_addsr, ("unet", "control"), torch.float32, "8.9"),
    ],
)
def test_memory_for_networks_is_told_before_a_file_is_opened(
    make, parts, precision, gigabytes, monkeypatch
):
    """``beside``, of AddSR, are the autoencoder and DAPE in fp32."""
    net, cpu = make(), torch.device("cpu")
    assert net.is_empty
    own = Components("it", FamilySettings(), {}, cpu, precision)
    networks = Networks(own, net, dict.fromkeys(parts, lambda: pytest.fail("a file was read")))
    beside = 4 * 283_000_000 if make is make_addsr else 0
    monkeypatch.setattr(components, "free_bytes", lambda device: 2_000_000_000)
    with pytest.raises(DeviceError, match=f"needs about {gigabytes} GB on cpu for its networks"):
        networks.load(beside)
    monkeypatch.setattr(components, "free_bytes", lambda device: 9_000_000_000)
    networks.check_memory(beside)
