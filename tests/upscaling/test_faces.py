"""Faces in photographs: where they are put, what is changed and what is not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import fake_model, photo
from PIL import Image
from skimage.transform import SimilarityTransform

from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import WeightsError
from yoda_cli.images.resize import imresize
from yoda_cli.models.face_detector import Face, FaceDetector, face_of
from yoda_cli.models.model import FaceHelp
from yoda_cli.upscaling import faces, pipeline
from yoda_cli.upscaling.faces import TEMPLATE, place, restored_faces
from yoda_cli.upscaling.resolve import resolve


def face_at(left, top, side, degrees=0.0):
    """A face that fills a square of ``side`` pixels, turned about its middle."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    places = ((TEMPLATE - 0.5) @ turn.T) * side + (left + side / 2, top + side / 2)
    return Face(places.astype(np.float32), 0.95, side / 2, side * 0.7)


def enlarge(square):
    return imresize(square, scale=4).clamp(0, 1)


def changed(before, after):
    """Rows and columns of the pixels that differ."""
    rows, columns = torch.nonzero((before != after).any(1)[0], as_tuple=True)
    return rows, columns


@pytest.mark.parametrize("degrees", [0, 20, 90, 180, -70])
def test_a_restorer_that_only_enlarges_leaves_the_enlargement(degrees):
    """No interpolation, no shift: whatever way the head lies."""
    lr = photo(96, 120)
    image = enlarge(lr)
    made, count = restored_faces(lr, image, [face_at(31.3, 17.8, 52, degrees)], enlarge)
    assert count == 1
    assert float((made - image)[..., 20:-20, 20:-20].abs().max()) < 1e-4


@pytest.mark.parametrize("scale", [1.5, 2, 3.7])
def test_a_face_lands_in_its_place_at_any_scale(scale):
    lr = photo(80, 90)
    size = (round(80 * scale), round(90 * scale))
    image = imresize(lr, size).clamp(0, 1)
    made, _ = restored_faces(lr, image, [face_at(20, 14, 50)], enlarge)
    assert float((made - image).square().mean().sqrt()) < 0.004


def test_a_face_is_restored_under_its_mask_and_nothing_else_moves():
    lr = photo(100, 140)
    image = enlarge(lr)
    kept = image.clone()
    made, count = restored_faces(lr, image, [face_at(60, 20, 64)], lambda s: enlarge(s) * 0 + 0.5)
    assert count == 1
    assert torch.equal(image, kept), "the picture that was given is left alone"
    rows, columns = changed(image, made)
    assert int(rows.min()) >= 4 * 20
    assert int(rows.max()) <= 4 * 84
    assert int(columns.min()) >= 4 * 60
    assert int(columns.max()) <= 4 * 124
    middle = made[..., 4 * 48 : 4 * 56, 4 * 88 : 4 * 96]
    grey = image[..., 4 * 48 : 4 * 56, 4 * 88 : 4 * 96].lerp(torch.tensor(0.5), 0.7)
    assert torch.allclose(middle, grey, atol=1e-6), "the enlarged face shows through"
    seam = (made - image)[0, :, rows, columns].abs()
    first = rows == rows.min()
    assert float(seam[:, first].max()) < 0.02, "the mask fades out"


@pytest.mark.parametrize(
    ("degrees", "strength"),
    [
        (0, 0.7),
        (-8, 0.7),
        (17.5, 0.575),
        (-17.5, 0.575),
        (30, 0.45),
        (45, 0.45),
        (90, 0.7),
        (107.5, 0.575),
    ],
)
def test_the_more_a_face_leans_the_less_of_it_is_pasted(degrees, strength):
    """The model of faces was trained on upright ones; a quarter turn costs nothing."""
    placed = place(face_at(20, 20, 60, degrees))
    assert placed.strength == pytest.approx(strength, abs=0.01)
    lr = photo(100, 100)
    image = enlarge(lr)
    made, _ = restored_faces(lr, image, [face_at(20, 20, 60, degrees)], lambda s: enlarge(s) * 0)
    share = 1 - made[..., 190:210, 190:210].mean() / image[..., 190:210, 190:210].mean()
    assert float(share) == pytest.approx(strength, abs=0.01)


@pytest.mark.parametrize(("side", "strength"), [(21, 0.443), (26, 0.56), (32, 0.7), (100, 0.7)])
def test_of_a_small_face_less_is_pasted(side, strength):
    assert place(face_at(20, 20, side)).strength == pytest.approx(strength, abs=0.01)


def test_faces_at_the_border_are_restored_as_far_as_they_are_seen():
    lr = photo(64, 64)
    image = enlarge(lr)
    for left, top in ((-20, -20), (40, 44), (-20, 40), (64, 64)):
        made, _ = restored_faces(lr, image, [face_at(left, top, 48)], lambda s: enlarge(s) * 0)
        assert made.shape == image.shape
        assert bool(made.isfinite().all())
        assert torch.equal(made, image) == (left == 64)


def test_a_face_too_small_too_large_or_not_like_one_is_left_alone():
    assert place(face_at(5, 5, faces.SMALLEST + 1)) is not None
    for side in (faces.SMALLEST - 1, faces.LARGEST + 1):
        assert place(face_at(5, 5, side)) is None
    twelve = face_at(10, 10, 12 / 0.53)  # a face of twelve pixels, ear to ear
    assert place(twelve) is not None
    strange = face_at(5, 5, 64)
    strange.places[2] += (40, 0)
    strange.places[3] -= (0, 40)
    assert place(strange) is None
    lr = photo(40, 40)
    image = enlarge(lr)
    made, count = restored_faces(lr, image, [strange], enlarge)
    assert made is image
    assert count == 0


def test_two_hundred_faces_are_restored():
    lr = photo(240, 400)
    crowd = [face_at(20 * (i % 20), 24 * (i // 20), 21) for i in range(200)]
    made, count = restored_faces(lr, enlarge(lr), crowd, lambda s: enlarge(s) * 0)
    assert count == 200
    assert float(made.mean()) < float(enlarge(lr).mean()) * 0.87


def test_similarity_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    places, onto = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    found = faces.similarity(places, onto)
    expected = SimilarityTransform.from_estimate(places, onto)
    assert np.allclose(found, expected.params[:2], atol=1e-9)


def test_yunets_row_is_read_in_the_pixels_of_the_picture():
    row = np.arange(15, dtype=np.float32)
    face = face_of(row, 0.5, 2.0)
    assert (face.width, face.height, face.score) == (1.0, 6.0, 14.0)
    assert face.places.tolist()[0] == [2.0, 10.0]


def test_the_model_of_faces_gets_the_fidelity_and_every_run_says_so(monkeypatch):
    model = fake_model()
    seen = []

    def detect(picture):
        return [face_at(8, 8, 48)]

    helped = replace(model, faces=FaceHelp(detect, fake_model()))
    original = pipeline.upscale_tensor

    def watched(lr, model, settings, *rest, **named):
        seen.append((tuple(lr.shape[-2:]), settings.sampling.fidelity))
        return original(lr, model, settings, *rest, **named)

    monkeypatch.setattr(pipeline, "upscale_tensor", watched)
    lr = photo(64, 72)
    asked = UpscaleOptions(fidelity=0.3, faces=True, attention="uniform", steps=2)
    settings = resolve(asked, helped)
    result = watched(lr, helped, settings)
    assert result.faces == 1
    assert seen == [((64, 72), 0.3), ((48, 48), 0.3)]
    assert "faces" in settings.switches()
    plain = original(lr, helped, resolve(replace(asked, faces=False), helped))
    assert plain.faces == 0
    assert not torch.equal(plain.image, result.image)


def test_a_missing_detector_offline_says_what_to_do(tmp_path, yoda):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    done = yoda("upscale", tmp_path / "a.png", "--faces", "--offline", "-q",
                "--cache-dir", tmp_path / "empty")  # fmt: skip
    assert done.code == 5
    assert "yoda weights pull yunet_n_dynamic.onnx" in done.err


def test_a_file_that_is_no_detector_is_named(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="not a face detector"):
        FaceDetector(tmp_path / "x.onnx")
