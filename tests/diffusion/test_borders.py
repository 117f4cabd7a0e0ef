"""No border where masks end: every sampler, with the exact denoiser of pictures that are Gaussian.

For a Gaussian with a known spectrum the best denoiser is known too (Wiener), so these runs are
diffusion as a perfect network would do it, at DiffBIR's noise levels and latent size.
"""

import pytest
import torch

from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.diffusion.timesteps import CHAINS
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.models.latent.denoising import make_latent_schedule

SIDE, COUNT = 64, 16
FREQUENCY = torch.fft.fftfreq(SIDE).square()
RADIUS = (FREQUENCY[:, None] + FREQUENCY).sqrt()
SPECTRUM = (1 + (RADIUS / 0.05) ** 2) ** -1.5
SPECTRUM = SPECTRUM / SPECTRUM.mean()  # latents of unit variance
DETAIL = SPECTRUM * (RADIUS > 0.08)  # what the unrefined latent lacks
ROWS, COLUMNS = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
EXACT = [name for name, sampler in SAMPLERS.items() if not sampler.is_distilled]
DISK = (ROWS - 32) ** 2 + (COLUMNS - 32) ** 2 < 18**2


def filtered(x, gain):
    return torch.fft.ifft2(torch.fft.fft2(x) * gain).real


def noise(seed):
    return torch.randn(COUNT, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


Z_LR = filtered(noise(12345), (SPECTRUM - DETAIL).sqrt())


def run(prediction, sampler, attention, lower, steps=10):
    schedule = make_latent_schedule(prediction)

    def predict(z_t, t, mask):
        signal, sigma = schedule.signal(t), schedule.sigma(t)
        gain = signal * DETAIL / (signal**2 * DETAIL + sigma**2).clamp(min=1e-12)
        return Z_LR + filtered(z_t - signal * Z_LR, gain)

    trailing = prediction == "v" or SAMPLERS[sampler].history > 0
    chain = CHAINS["trailing" if trailing else "openai"](schedule.num_steps, steps)
    return masked_sample(
        predict, SAMPLERS[sampler].step, schedule, chain,
        AttentionMask(attention.float().expand(COUNT, 1, -1, -1), lower, schedule.num_steps),
        Z_LR, (lambda s: noise(s)) if SAMPLERS[sampler].is_stochastic else lambda s: noise(0),
    )  # fmt: skip


def steepness(z):
    """Mean |difference| of neighbours: across the disk's line, inside it, outside it."""
    inside = DISK[:, 1:] & DISK[:, :-1]
    outside = ~(DISK[:, 1:] | DISK[:, :-1])
    steps = (z[..., 1:] - z[..., :-1]).abs().mean((0, 1))
    return tuple(float(steps[where].mean()) for where in (~(inside | outside), inside, outside))


@pytest.mark.parametrize("lower", [0.02, 0.3])
@pytest.mark.parametrize("sampler", EXACT)
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_line_where_a_mask_ends_is_not_seen(prediction, sampler, lower):
    """Across it a picture is no steeper than where there is most detail, with A from 0 to 1."""
    across, inside, outside = steepness(run(prediction, sampler, DISK, lower))
    assert inside > 1.02 * outside, "the mask did nothing, so nothing was shown"
    assert outside < across < inside


@pytest.mark.parametrize("sampler", EXACT)
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_exact_denoiser_draws_the_missing_detail(prediction, sampler):
    """Few steps draw too little (ẑ_0 lags behind), never too much; many come to the true spread."""
    everywhere, wanted = torch.ones(SIDE, SIDE), float(DETAIL.mean())
    few, many = (run(prediction, sampler, everywhere, 0.0, n) - Z_LR for n in (10, 100))
    assert 0.55 * wanted < float(few.var()) < 1.05 * wanted
    assert float(many.var()) == pytest.approx(wanted, rel=0.1)
    assert steepness(many)[0] == pytest.approx(steepness(many)[1], rel=0.03)


@pytest.mark.parametrize("sampler", SAMPLERS.keys() - set(EXACT))
def test_a_sampler_for_distilled_networks_loses_the_detail_that_others_average(sampler):
    wanted = float(DETAIL.mean())
    many = run("eps", sampler, torch.ones(SIDE, SIDE), 0.0, 40) - Z_LR
    assert float(many.var()) < 0.55 * wanted


def test_a_border_would_be_seen():
    """The measure sees an offset of half a standard deviation between the mask's two sides."""
    across, inside, _ = steepness(run("eps", "ddim", DISK, 0.3) + 0.5 * DISK)
    assert across > 1.2 * inside
