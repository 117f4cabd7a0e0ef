"""ncnn in torch's place: the same picture, plan, noise and words, and no torch loaded."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from fakes import photo, save_photo
from PIL import Image

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.graphs import Graph, graph_file, read_graphs, write_graphs
from yoda_cli.diffusion.noise import NoiseField
from yoda_cli.errors import WeightsError, is_out_of_memory
from yoda_cli.images import read_picture
from yoda_cli.images.degradation import estimate
from yoda_cli.images.picture import fill_transparent
from yoda_cli.images.reading import read_provenance
from yoda_cli.models.loading import find_model
from yoda_cli.models.ncnn_graphs import MODELS, packaged_graphs
from yoda_cli.upscaling.batch.inputs import Found
from yoda_cli.upscaling.batch.runtime import NCNN, RUNTIMES, TORCH, pick_runtime
from yoda_cli.upscaling.picture import resolve_for_picture
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.weights.entries import PACKAGE

CPU = {"device": "cpu", "precision": "fp32"}
NEAR = 50  # dB


@pytest.fixture(scope="module")
def models():
    """Each packaged model on both runtimes."""
    from yoda_cli.models.ncnn_network import load_plain

    options = [UpscaleOptions(model=name, **CPU) for name in MODELS]
    return {one.model: (find_model(one), load_plain(one)) for one in options}


def psnr(a, b):
    error = float(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean())
    return 99.0 if error == 0 else -10 * np.log10(error)


def both(models, name, height, width, **asked):
    """What torch and what ncnn make of one picture."""
    options = UpscaleOptions(model=name, **CPU, **asked)
    lr, made = photo(height, width), []
    for model in models[name]:
        given = lr.numpy() if model.is_plain else lr
        settings, _ = resolve_for_picture(given, model, options)
        made.append((settings, upscale_tensor(given, model, settings)))
    return made


ASKED = [
    (1, 1, {}),
    (20, 3, {}),
    (33, 47, {}),
    (33, 47, {"steps": 2, "seed": 7}),
    (33, 47, {"scale": 2.5, "denoise": 0.6, "attention": "uniform"}),
    (33, 47, {"scale": 0.5}),
    (24, 40, {"fidelity": 0.0, "lower_bound": 0.1, "attention": "edge"}),
    (24, 40, {"fidelity": 1.0}),
    (24, 40, {"budget": 0.5, "attention": "gaussian"}),
    (24, 40, {"sampler": "ddpm", "steps": 4, "faithful": True}),
    (24, 40, {"sampler": "dpm++3m-sde", "steps": 4}),
    (24, 40, {"tile": 64, "skip": False, "steps": 2}),
    (72, 80, {"block": 256, "steps": 2}),
    (12, 15, {"scale": 9.0, "steps": 1}),
]


@pytest.mark.parametrize(("height", "width", "asked"), ASKED)
def test_the_picture_is_torchs_and_so_is_the_plan(models, height, width, asked):
    (theirs, expected), (ours, made) = both(models, "general", height, width, **asked)
    assert isinstance(made.image, np.ndarray)
    assert made.image.dtype == np.float32
    assert made.image.shape == tuple(expected.image.shape)
    assert psnr(made.image, expected.image) >= NEAR
    for name in ("planned_calls", "calls", "dense_calls", "blocks", "network_pixels"):
        assert getattr(made, name) == getattr(expected, name), name
    assert made.lower_bound == pytest.approx(expected.lower_bound, abs=1e-3)
    assert [row for row in ours.rows() if row[0] != "device"] == [
        row for row in theirs.rows() if row[0] != "device"
    ]


def test_faces_too(models):
    (_, expected), (_, made) = both(models, "face", 36, 24, steps=2)
    assert psnr(made.image, expected.image) >= NEAR
    assert made.calls == expected.calls


def test_the_noise_has_the_same_bits():
    field = NoiseField(5)
    assert np.array_equal(field.array(3, -2, 60, 70, 9), field.draw(3, -2, 60, 70, 9).numpy())


@pytest.mark.parametrize("size", [(24, 30), (64, 64), (90, 201)])
def test_damage_is_judged_alike(size):
    lr = (photo(*size) + 0.1 * torch.randn(1, 3, *size)).clamp(0, 1)
    assert estimate(lr.numpy()) == pytest.approx(estimate(lr), abs=0.011)
    assert estimate(lr) > 0.1


def test_hidden_colours_are_filled_alike():
    rgb, alpha = photo(23, 31), (photo(23, 31, seed=1)[:, :1] > 0.5).float()
    filled = fill_transparent(rgb.numpy(), alpha.numpy())
    assert np.array_equal(filled, fill_transparent(rgb, alpha).numpy())  # the noise hangs on it


def pictures(folder):
    save_photo(folder / "plain.jpg", 20, 26)
    pixels = (photo(18, 21)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    clear = np.dstack([pixels, np.where(pixels[..., :1] > 100, 255, 0).astype(np.uint8)])
    Image.fromarray(clear).save(folder / "clear.png", dpi=(200, 200))
    Image.fromarray(pixels).convert("L").save(folder / "grey.webp", lossless=True)
    with Image.open(folder / "plain.jpg") as image:
        exif = Image.Exif()
        exif[0x010E], exif[0x0112] = "a description", 6
        image.save(folder / "turned.jpg", exif=exif, icc_profile=b"", comment=b"a comment")
    return sorted(folder.iterdir())


def test_files_carry_the_same(yoda, tmp_path):
    (tmp_path / "in").mkdir()
    for source in pictures(tmp_path / "in"):
        results = []
        for runtime in ("torch", "ncnn"):
            target = tmp_path / f"{source.stem}-{runtime}{source.suffix}"
            done = yoda(
                "upscale", source, "-o", target, "--steps", 2, "--device", "cpu", "--precision",
                "fp32", "--runtime", runtime,
            )  # fmt: skip
            assert done.code == 0, done.err
            said = {k: v for k, v in read_provenance(target).items() if k != "settings"}
            settings = eval(read_provenance(target)["settings"], {"true": True, "false": False})
            names = set(settings) & {"torch", "ncnn"}
            assert names == {"torch" if runtime == "torch" else "ncnn"}
            settings = {k: v for k, v in settings.items() if k not in names}
            picture = read_picture(target)
            kept = {**asdict(picture.metadata), "xmp": b"", "text": {}}
            results.append((said, settings, kept, picture))
        (*theirs, expected), (*ours, made) = results
        assert ours == theirs
        assert (made.is_grey, made.bits) == (expected.is_grey, expected.bits)
        assert psnr(made.rgb, expected.rgb) >= NEAR
        assert (made.alpha is None) == (expected.alpha is None)
        if made.alpha is not None:
            assert psnr(made.alpha, expected.alpha) >= NEAR


RUN = """
import sys
sys.argv = ["yoda", *sys.argv[1:]]
from yoda_cli.__main__ import main
try:
    code = main()
except SystemExit as end:
    code = end.code
print(code or 0, "torch" in sys.modules, file=sys.stderr)
"""


def alone(*arguments):
    """The last word of a process: its exit code, and whether it loaded torch."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    code, loaded = done.stderr.split()[-2:]
    return int(code), loaded == "True", done.stderr


def test_nobody_waits_for_torch(tmp_path):
    save_photo(tmp_path / "photo.jpg", 20, 26)
    plain = ("upscale", tmp_path / "photo.jpg", "--steps", 2, "--device", "cpu")
    code, loaded, said = alone(*plain, "-o", tmp_path / "made.png")
    assert (code, loaded) == (0, False), said
    assert "tiles computed" in said
    assert "ncnn" in read_provenance(tmp_path / "made.png")["settings"]
    code, loaded, said = alone(*plain, "--dry-run")
    assert (code, loaded) == (0, False), said


def test_what_it_cannot_do_torch_does(tmp_path):
    save_photo(tmp_path / "photo.jpg", 12, 10)
    plain = ("upscale", tmp_path / "photo.jpg", "--steps", 1, "--device", "cpu")
    code, loaded, said = alone(*plain, "--exact", "-v", "-o", tmp_path / "made.png")
    assert (code, loaded) == (0, True), said
    assert "torch runs the network: --exact" in said


REFUSED = [
    ({"exact": True}, {}, "--exact"),
    ({"adaptive": True}, {}, "--adaptive"),
    ({"model": "photo"}, {}, "the model photo"),
    ({"model": "mine.safetensors"}, {}, "the model mine.safetensors"),
    ({"device": "cuda"}, {}, "--device cuda"),
    ({"precision": "bf16"}, {}, "--precision bf16"),
    ({"attention": "dino-vits8"}, {}, "--attention dino-vits8"),
    ({"stream": True}, {}, "--stream"),
    ({"where": "face"}, {}, "--where"),
    ({}, {"is_watched": True}, "--dump and --report"),
    ({}, {"is_local": False}, "--engine ray"),
]


@pytest.mark.parametrize(("asked", "how", "reason"), REFUSED)
def test_what_it_cannot_do_is_refused_where_it_was_asked_for(tmp_path, asked, how, reason):
    save_photo(tmp_path / "photo.jpg", 12, 10)
    found = [Found(tmp_path / "photo.jpg")]
    options, where = UpscaleOptions(**asked), {"is_watched": False, "is_local": True, **how}
    with pytest.raises(WeightsError, match=f"--runtime ncnn does not do {reason}; leave it out"):
        pick_runtime(NCNN, options, found, None, **where)
    assert pick_runtime("auto", options, found, None, **where)[0] == TORCH
    assert pick_runtime(TORCH, options, found, None, **where)[0] == TORCH


def test_several_pictures_and_animations_too(yoda, tmp_path):
    save_photo(tmp_path / "one.jpg", 12, 10)
    save_photo(tmp_path / "two.jpg", 12, 10)
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for runtime in ("ncnn", "torch"):
        done = yoda(
            "upscale", tmp_path / "one.jpg", tmp_path / "two.jpg", tmp_path / "moving.gif", "-o",
            tmp_path / runtime, "--runtime", runtime, "--steps", 1, "--device", "cpu",
            "--precision", "fp32",
        )  # fmt: skip
        assert done.code == 0, done.err
    for theirs in (tmp_path / "torch").iterdir():
        with Image.open(theirs) as a, Image.open(tmp_path / "ncnn" / theirs.name) as b:
            assert getattr(a, "n_frames", 1) == getattr(b, "n_frames", 1)
            assert psnr(np.asarray(a.convert("RGB")) / 255, np.asarray(b.convert("RGB")) / 255) > 45
    done = yoda("upscale", tmp_path / "one.jpg", "--runtime", "tensorflow")
    assert (done.code, "use auto, torch, ncnn" in done.err) == (2, True)


def test_without_ncnn_all_is_as_before(monkeypatch, yoda, tmp_path):
    save_photo(tmp_path / "photo.jpg", 12, 10)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ncnn" else real(name)
    )
    done = yoda("upscale", tmp_path / "photo.jpg", "--runtime", "ncnn", "-o", tmp_path / "a.png")
    assert done.code == 5
    assert "ncnn is not installed: pip install" in done.err
    monkeypatch.delitem(sys.modules, "torch")  # as in a new process
    found, how = [Found(tmp_path / "photo.jpg")], {"is_watched": False, "is_local": True}
    assert pick_runtime("auto", UpscaleOptions(), found, None, **how)[0] == TORCH


def test_where_torch_pays_it_is_taken(monkeypatch, tmp_path):
    save_photo(tmp_path / "photo.jpg", 12, 10)
    found, how = [Found(tmp_path / "photo.jpg")], {"is_watched": False, "is_local": True}
    options = UpscaleOptions(device="cpu")
    assert pick_runtime("auto", options, found, None, **how)[0] == TORCH  # it is loaded here
    monkeypatch.delitem(sys.modules, "torch")
    assert pick_runtime("auto", options, found, None, **how)[0] == NCNN
    runtime = "yoda_cli.upscaling.batch.runtime"
    monkeypatch.setattr(f"{runtime}.may_have_gpu", lambda: True)
    assert pick_runtime("auto", options, found, None, **how)[0] == NCNN
    assert pick_runtime("auto", UpscaleOptions(), found, None, **how)[0] == TORCH
    monkeypatch.setattr(f"{runtime}.may_have_bf16_units", lambda: True)
    assert pick_runtime("auto", options, found, None, **how)[0] == NCNN
    monkeypatch.setattr(f"{runtime}.LARGEST_BY_BF16", 100)
    assert pick_runtime("auto", options, found, None, **how)[0] == TORCH
    assert pick_runtime(NCNN, options, found, None, **how)[0] == NCNN


def test_a_damaged_picture_is_sooner_by_torch_where_it_computes_in_bf16(monkeypatch, tmp_path):
    save_photo(tmp_path / "small.png", 100, 100)
    save_photo(tmp_path / "photo.png", 120, 120)
    runtime = "yoda_cli.upscaling.batch.runtime"
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(f"{runtime}.may_have_bf16_units", lambda: True)
    how = {"is_watched": False, "is_local": True}

    def pick(name, **options):
        found = [Found(tmp_path / name)]
        return pick_runtime("auto", UpscaleOptions(device="cpu", **options), found, None, **how)[0]

    assert pick("photo.png", denoise=0.5) == TORCH
    assert pick("photo.png", denoise=0.0) == NCNN
    assert pick("small.png", denoise=0.5) == NCNN
    assert pick("photo.png", denoise=0.5, model="face") == NCNN
    told = []
    monkeypatch.setattr(f"{runtime}.estimate", lambda rgb: told.append(rgb.shape) or 0.4)
    assert pick("photo.png") == TORCH
    assert pick("small.png") == NCNN
    assert told == [(1, 3, 120, 120)]
    (tmp_path / "cut.png").write_bytes((tmp_path / "photo.png").read_bytes()[:-500])
    assert pick("cut.png") == NCNN  # which says what is wrong with it


def test_names_for_completion_are_those_of_the_program():
    from yoda_cli.cli._names import RUNTIMES as NAMED

    assert NAMED == RUNTIMES


def test_the_packaged_graphs_are_those_of_the_networks():
    checkpoints = PACKAGE / "checkpoints"
    for name, data in packaged_graphs():
        assert (checkpoints / name).read_bytes() == data, "run scripts/make_graphs.py"


def test_the_graphs_read_every_weight(models):
    for name, (model, _) in models.items():
        layouts, _ = read_graphs(PACKAGE / "checkpoints" / name)
        seen = {weight.key for layout in layouts.values() for weight in layout.weights}
        assert set(model.backbone.state_dict()) - seen == {"encoder.difficulty_p90"}  # in the facts


@torch.inference_mode()
@pytest.mark.parametrize("strength", [0.0, 0.3])
@pytest.mark.parametrize("name", MODELS)
def test_the_packaged_graphs_give_what_their_networks_give(models, name, strength):
    model, plain = models[name]
    lr, z_t = photo(12, 20), torch.randn(1, 3, 48, 80)
    expected, made = (
        model.backbone.encode(lr, strength),
        plain.backbone.encode(lr.numpy(), strength),
    )
    assert np.allclose(made.attention, expected.attention, atol=1e-5)
    for key in ("features", "base"):
        assert np.allclose(made.maps[key], expected.maps[key], atol=1e-4)
    mask = z_t[:, :1] > 0
    z_0 = plain.backbone.predict(z_t.numpy(), 400, made, mask.numpy())
    assert np.allclose(z_0, model.backbone.predict(z_t, 400, expected, mask), atol=1e-4)


@pytest.mark.parametrize("wrong", ["layers", "weights", "nothing", "no JSON"])
def test_a_damaged_graph_is_an_error_of_one_line(tmp_path, wrong):
    source = PACKAGE / "checkpoints" / "general"
    layouts, facts = read_graphs(source)
    layout = layouts["encoder"]
    if wrong == "layers":
        layout = replace(layout, layers=layout.layers.replace("Convolution", "Nonsense", 1))
    if wrong == "weights":
        layout = replace(layout, weights=layout.weights[:-2])
    graph_file(tmp_path / "general").write_bytes(
        b"{" if wrong == "no JSON"
        else write_graphs({} if wrong == "nothing" else {"encoder": layout}, facts)
    )  # fmt: skip
    (tmp_path / "general.safetensors").write_bytes(source.with_suffix(".safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"cannot be read|does not fit|has no graph"):
        Graph.of(tmp_path / "general", "encoder")


def test_a_lack_of_memory_is_known_as_one(models):
    """ncnn gives a code then, or an empty value."""
    from ncnn import Mat

    class Net:
        def create_extractor(self):
            return self

        def input(self, name, value): ...

        def extract(self, name):
            return self.answer

    layout = models["general"][1].backbone.graph("denoiser").layout
    for answer in ((-100, Mat()), (0, Mat())):
        Net.answer = answer
        with pytest.raises(RuntimeError) as caught:
            Graph(Net(), layout, 0).run(dict.fromkeys(layout.inputs, np.ones((1, 1, 4, 4))))
        assert is_out_of_memory(caught.value)


def test_nobody_imports_the_runtime_but_by_its_door():
    for library, door in (("onnxruntime", "devices/onnx.py"), ("ncnn", "devices/graphs.py")):
        pattern = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
        found = [str(p) for p in PACKAGE.rglob("*.py") if pattern.search(p.read_text("utf-8"))]
        assert [name[-len(door) :] for name in found] == [door]
