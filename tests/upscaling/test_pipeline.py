"""The whole loop on a closed-form network: sizes, tiles, skipping, seeds, sources, options."""

import hashlib
from pathlib import Path

import pytest
import torch
from fakes import enlarge, fake_model, photo
from torch.nn.functional import max_pool2d

from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import UsageError
from yoda_cli.images.fidelity import draw_towards_base
from yoda_cli.images.resize import imresize
from yoda_cli.upscaling.blocks import picture_seed
from yoda_cli.upscaling.checks import check_options
from yoda_cli.upscaling.result import Observer

SMALL = UpscaleOptions(steps=5, lower_bound=0.2)


def options(**changes):
    return UpscaleOptions(**{"steps": 5, "lower_bound": 0.2, **changes})


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (2, 2), (31, 8), (1, 700)])
@pytest.mark.parametrize("scale", [None, 1, 2.5, 3, 4, 8])
def test_any_size_and_factor_gives_the_size_asked_for(size, scale):
    result = enlarge(photo(*size), fake_model(), options(scale=scale))
    factor = scale or 4
    assert result.image.shape == (1, 3, *(round(n * factor) for n in size))
    assert result.image.min() >= 0
    assert result.image.max() <= 1


def test_a_long_line_of_pixels_works():
    result = enlarge(photo(20_000, 1), fake_model(), options())
    assert result.image.shape == (1, 3, 80_000, 4)
    assert result.image.isfinite().all()


def test_factor_eight_is_two_passes_and_five_is_one():
    lr = photo(8, 8)
    one = enlarge(lr, fake_model(), options(scale=4, tile=0)).dense_calls
    assert enlarge(lr, fake_model(), options(scale=8, tile=0)).dense_calls == 2 * one
    assert enlarge(lr, fake_model(), options(scale=5, tile=0)).dense_calls == one


def test_the_record_keeps_the_calls_that_were_told_before_the_first():
    """The second pass has a map of its own, which nobody knew when the first began."""
    told = []
    observer = Observer(on_plan=lambda calls, seconds: told.append(calls))
    lr = photo(24, 24)
    result = enlarge(
        lr, fake_model(), options(scale=8, tile=64), observer, attention=torch.zeros(1, 1, 24, 24)
    )
    assert result.planned_calls == told[0] != result.calls


@pytest.mark.parametrize("attention", ["learned", "edge", "sift", "gaussian", "uniform"])
def test_skipping_idle_tiles_changes_no_byte_and_calls_equal_the_plan(attention):
    lr = photo(64, 96)
    runs = {}
    for skip in (True, False):
        model = fake_model()
        chosen = options(attention=attention, lower_bound=0.05, tile=64, skip=skip)
        result = enlarge(lr, model, chosen)
        assert result.calls == result.planned_calls == model.backbone.calls
        runs[skip] = result
    assert torch.equal(runs[True].image, runs[False].image)
    assert runs[True].dense_calls == runs[False].calls
    if attention == "gaussian":
        assert runs[True].calls < runs[False].calls


def test_the_cut_into_tiles_does_not_matter_to_a_local_network():
    lr = photo(64, 96)
    whole = enlarge(lr, fake_model(), options(tile=0)).image
    for tile in (64, 72, 200, 4096):
        assert torch.equal(enlarge(lr, fake_model(), options(tile=tile)).image, whole)


def test_one_seed_one_picture_and_another_seed_another():
    lr = photo(16, 16)
    first = enlarge(lr, fake_model(), options()).image
    assert torch.equal(enlarge(lr, fake_model(), options()).image, first)
    assert not torch.equal(enlarge(lr, fake_model(), options(seed=1)).image, first)


def test_the_seed_of_a_picture_depends_on_its_pixels_shape_and_the_users_seed():
    lr = photo(6, 8)
    seeds = {
        picture_seed(0, lr),
        picture_seed(1, lr),
        picture_seed(0, lr + 0.01),
        picture_seed(0, lr.reshape(1, 3, 8, 6)),
    }
    assert len(seeds) == 4
    assert picture_seed(0, lr.clone()) == picture_seed(0, lr)


def test_the_seed_is_a_digest_of_all_pixels_whether_bytes_or_floats():
    lr = (photo(700, 3) * 255).round().byte()  # 2,100 rows: hashed in three parts
    values = (lr.double() / 255 * 65535).round().int().numpy()
    digest = hashlib.sha256(b"7 (1, 3, 700, 3) " + values.tobytes()).digest()
    expected = int.from_bytes(digest[:8], "little")
    assert picture_seed(7, lr) == picture_seed(7, lr.float() / 255) == expected


def test_a_painted_map_is_a_source_and_is_resized(tmp_path):
    from PIL import Image

    painted = Image.new("L", (50, 30))
    painted.paste(255, (25, 0, 50, 30))
    painted.save(tmp_path / "map.png")
    chosen = options(attention=str(tmp_path / "map.png"))
    result = enlarge(photo(16, 24), fake_model(), chosen)
    assert result.attention.shape == (1, 1, 16, 24)
    assert result.attention[..., :10].max() < 0.05
    assert result.attention[..., 14:].min() > 0.95


def test_faithful_takes_an_ancestral_sampler_and_refuses_another():
    lr = photo(8, 8)
    enlarge(lr, fake_model(), options(faithful=True))
    with pytest.raises(UsageError, match="needs the variance"):
        enlarge(lr, fake_model(), options(faithful=True, sampler="ddim"))


def test_a_model_without_learned_attention_says_so():
    model = fake_model()
    encode = model.backbone.encode

    def bare(lr, strength=0.0):
        from dataclasses import replace

        return replace(encode(lr), attention=None)

    model.backbone.encode = bare
    with pytest.raises(UsageError, match="no learned attention"):
        enlarge(photo(8, 8), model, options())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 0.0}, "scale 0"),
        ({"scale": -1.0}, "scale -1"),
        ({"scale": float("nan")}, "scale nan"),
        ({"scale": 1000.0}, "scale 1000"),
        ({"lower_bound": 0.0}, "lower bound 0"),
        ({"lower_bound": float("nan")}, "lower bound nan"),
        ({"steps": 0}, "steps 0"),
        ({"fidelity": 1.5}, "fidelity 1.5"),
        ({"fidelity": float("nan")}, "fidelity nan"),
        ({"seed": -1}, "seed -1"),
        ({"tile": -8}, "tile -8"),
        ({"tile": 63}, "tile 63"),
        ({"sampler": "euler"}, "unknown sampler 'euler'"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        check_options(options(**changes))


def test_fidelity_leads_from_the_sample_to_the_unrefined_picture():
    lr = photo(12, 12)
    images = {f: enlarge(lr, fake_model(), options(fidelity=f)).image for f in (0, 0.25, 0.5, 1)}
    unrefined = imresize(lr, scale=4).clamp(0, 1)
    assert torch.allclose(images[1], unrefined, atol=1e-6)
    distances = [(image - unrefined).abs().mean().item() for image in images.values()]
    assert distances == sorted(distances, reverse=True)
    clipped = ((images[0] <= 0) | (images[0] >= 1)).any(dim=1, keepdim=True).float()
    inner = (max_pool2d(clipped, 5, 1, 2) == 0).expand_as(images[0])  # and no neighbour is
    assert inner.float().mean() > 0.3
    half = draw_towards_base(images[0], images[1], 0.5)
    assert torch.allclose(images[0.5][inner], half[inner], atol=1e-5)
    full = enlarge(lr, fake_model(), options(fidelity=1.0))
    assert full.calls == full.planned_calls == 0


def test_a_lower_bound_that_would_leave_noise_is_refused():
    with pytest.raises(UsageError, match="below 1/T = 1/100"):
        enlarge(photo(8, 8), fake_model(), options(lower_bound=0.009))
    enlarge(photo(8, 8), fake_model(), options(lower_bound=0.01))


def test_an_unknown_source_is_named():
    with pytest.raises(UsageError, match="unknown attention source 'egde'"):
        enlarge(photo(8, 8), fake_model(), options(attention="egde"))


def test_observers_hear_the_plan_every_call_and_every_step():
    heard = {"plan": 0, "calls": 0, "steps": []}
    observer = Observer(
        on_plan=lambda calls, seconds: heard.update(plan=heard["plan"] + calls),
        on_call=lambda: heard.update(calls=heard["calls"] + 1),
        on_step=lambda record: heard["steps"].append(record.s),
        whole=True,
    )
    result = enlarge(photo(16, 16), fake_model(), options(), observer)
    assert heard["plan"] == heard["calls"] == result.calls
    assert heard["steps"] == [80, 60, 40, 20, 0]


def page_programs():
    """The two programs of the page on new networks: a backbone, and a family of latents."""
    page = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
    for part in page.split("```python\n")[1:]:
        scope = {}
        exec(compile(part.split("```")[0], "backbones.md", "exec"), scope)
        yield scope


def test_the_backbone_of_the_page_runs(monkeypatch, tmp_path):
    from yoda_cli.models import BACKBONES
    from yoda_cli.models.checkpoint import save_checkpoint
    from yoda_cli.models.loading import load_model

    plain, _ = page_programs()
    monkeypatch.setitem(BACKBONES, "plain", plain["from_config"])
    net = plain["from_config"]({"width": 4})
    path = tmp_path / "plain.safetensors"
    save_checkpoint(path, backbone="plain", net={"width": 4}, state=net.state_dict(), card={})
    model = load_model(path, "plain", UpscaleOptions(precision="fp32"))
    result = enlarge(photo(9, 5), model, options(attention="edge"))
    assert result.image.shape == (1, 3, 36, 20)
    assert result.calls == 5


REGISTRY = """
[models.tiles]
summary = "no weights"
backbone = "mosaic"
files = { unused = "nothing.pth" }
scale = 2
licence = "none"
source = "here"
trained_with_yoda = false
attention = "edge"
sampler = "ddpm"
steps = 3
settings = { shortest = 64 }

[files."nothing.pth"]
format = "pth"
manual = "nobody needs it"
licence = "none"
source = "here"
"""


def test_the_latent_family_of_the_page_runs_by_its_line_in_the_table(monkeypatch, tmp_path):
    from yoda_cli.models.latent.catalog import FAMILIES, FamilyLine
    from yoda_cli.models.loading import find_model

    _, mosaic = page_programs()
    monkeypatch.setitem(FAMILIES, "mosaic", FamilyLine(mosaic["Mosaic"], roles=()))
    (tmp_path / "registry.toml").write_text(REGISTRY)
    monkeypatch.setenv("YODA_REGISTRY", str(tmp_path / "registry.toml"))
    model = find_model(UpscaleOptions(model="tiles", precision="fp32", device="cpu"))
    lr = photo(20, 33)
    result = enlarge(lr, model, UpscaleOptions(model="tiles", lower_bound=0.2))
    assert result.image.shape == (1, 3, 40, 66)
    assert result.calls == result.planned_calls > 0
    # What it makes are the mean colours of blocks, in the restored picture's low band.
    assert float((result.image - imresize(lr, (40, 66))).abs().mean()) < 0.1
