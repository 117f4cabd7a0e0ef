"""Memory is forecast from the header, and where it runs out all the same, that is exit 6."""

import inspect
import io
import json
import resource
import subprocess
import sys
import weakref
import zlib
from operator import attrgetter, itemgetter

import cv2
import pytest
import torch
from broken import animation, mended, noise, one_bit_png, sound
from commands import finished, started
from fakes import fake_model, photo, save_photo
from PIL import Image

from yoda_cli.cli import run
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.errors import DeviceError, InputError, is_out_of_memory
from yoda_cli.images import opening, read_picture
from yoda_cli.images.opening import read_stream
from yoda_cli.images.resize import imresize, shrink
from yoda_cli.upscaling import animation as upscaling_animation
from yoda_cli.upscaling import forecast, picture
from yoda_cli.upscaling.batch import local
from yoda_cli.upscaling.batch.processes import Worker
from yoda_cli.upscaling.forecast import Way
from yoda_cli.upscaling.pipeline import upscale_tensor
from yoda_cli.upscaling.resolve import resolve

SAID = {
    "torch, CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "torch, Windows": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you "
        "tried to allocate 4000000000 bytes."
    ),
    "torch's class": torch.OutOfMemoryError("x"),
    "CUDA": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be …"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 17.5 GB)"),
    "oneDNN": RuntimeError("could not create a primitive"),
    "oneDNN, memory": RuntimeError("could not create a memory object"),
    "C++": RuntimeError("std::bad_alloc"),
    "C++, Windows": RuntimeError("bad allocation"),
    "NumPy": MemoryError("Unable to allocate 7.28 TiB for an array with shape (1000000000000,)"),
    "OpenCV": cv2.error(
        "OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 40 bytes"
    ),
    "Pillow": OSError("out of memory error when reading image file"),
    "libvips": RuntimeError("unable to call jpegsave\n vips: out of memory -- size == 12MB"),
    "the loader": ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    "threads": RuntimeError("can't start new thread"),
    "the system": OSError(12, "Cannot allocate memory"),
    "Python": MemoryError(),
}
OTHERS = [
    RuntimeError("could not create a primitive descriptor for a convolution"),
    RuntimeError("size mismatch"),
    ValueError("out of range"),
    FileNotFoundError(2, "No such file or directory", "out of memory.png"),
    InputError("out of memory.png is damaged"),
    zlib.error("Error -3 while decompressing data: incorrect header check"),
]


@pytest.mark.parametrize("library", SAID)
def test_every_library_s_words_for_it_are_known(library):
    assert is_out_of_memory(SAID[library])


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("library", ["NumPy", "OpenCV", "Pillow", "oneDNN", "the system"])
@pytest.mark.parametrize("place", ["read", "upscale_tensor", "encode_picture"])
def test_wherever_it_happens_the_exit_code_is_six(
    yoda, tmp_path, monkeypatch, tiny_checkpoint, place, library
):
    def fail(*_, **__):
        raise SAID[library]

    save_photo(tmp_path / "in.png", 8, 8)
    if place == "encode_picture":
        monkeypatch.setattr(Image.Image, "save", fail)
    elif place == "read":
        monkeypatch.setattr("yoda_cli.images.reading._still", fail)
    else:
        monkeypatch.setattr(picture, place, fail)
    done = yoda("upscale", tmp_path / "in.png", "--model", tiny_checkpoint, "-q")
    assert (done.code, done.err.count("\n")) == (6, 1), done.err
    assert "out of memory" in done.err


def test_memory_that_runs_out_before_any_picture_is_exit_six(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("yoda_cli.cli._upscaling.check_running", fail)
    save_photo(tmp_path / "in.png", 8, 8)
    assert run(["upscale", str(tmp_path / "in.png")]) == 6
    assert "out of memory" in capsys.readouterr().err


def test_a_result_beyond_the_bound_is_refused_before_a_pixel_is_decoded(
    yoda, tmp_path, monkeypatch, tiny_checkpoint
):
    def never(*_, **__):
        raise AssertionError("it was decoded")

    monkeypatch.setattr(Image.Image, "load", never)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    (tmp_path / "b1.png").write_bytes(one_bit_png(16_384))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = yoda("upscale", tmp_path / "b1.png", "--model", tiny_checkpoint)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "65536×65536" in done.err
    assert "--max-pixels" in done.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    dry = yoda("upscale", tmp_path / "b1.png", "--model", tiny_checkpoint, "--dry-run")
    assert (dry.code, dry.err) == (4, done.err)


@pytest.mark.parametrize(("bound", "code"), [("1023", 4), ("1024", 0), ("1k", 4), ("2k", 0)])
def test_the_bound_counts_pixels_of_the_result(yoda, tmp_path, tiny_checkpoint, bound, code):
    save_photo(tmp_path / "in.png", 8, 8)
    done = yoda(
        "upscale", tmp_path / "in.png", "--model", tiny_checkpoint, "-q", "--max-pixels", bound
    )
    assert done.code == code, done.err


@pytest.mark.parametrize("bound", ["0", "-1", "x", "1.5.2M", "1e999", ""])
def test_a_bound_that_is_no_number_is_a_usage_error(yoda, tmp_path, tiny_checkpoint, bound):
    save_photo(tmp_path / "in.png", 8, 8)
    done = yoda("upscale", tmp_path / "in.png", "--model", tiny_checkpoint, "--max-pixels", bound)
    assert done.code == 2


def test_the_bound_also_holds_for_what_is_made_on_the_way():
    assert forecast.largest_canvas(100, 50, 4.0, Way(4)) == 400 * 200
    assert forecast.largest_canvas(100, 50, 6.1, Way(4)) == 1600 * 800  # two passes, then reduced
    assert forecast.largest_canvas(100, 50, 1.5, Way(4)) == 400 * 200
    assert forecast.largest_canvas(100, 50, 0.5, Way(4)) == 100 * 50
    assert forecast.largest_canvas(100, 50, 6.1, Way(None)) == 610 * 305  # in one pass
    assert forecast.largest_canvas(100, 50, 0.1, Way(None, 512)) == 1024 * 512  # at the least


def test_a_picture_that_memory_does_not_hold_is_refused_from_its_header(
    yoda, tmp_path, monkeypatch, tiny_checkpoint
):
    save_photo(tmp_path / "in.png", 64, 64)
    monkeypatch.setattr(forecast, "free_memory_bytes", lambda: 1_000_000)
    done = yoda("upscale", tmp_path / "in.png", "--model", tiny_checkpoint, "--no-stream")
    assert (done.code, done.err.count("\n")) == (6, 1)
    assert "GB are free" in done.err
    assert "--stream" in done.err


@pytest.mark.parametrize(("kind", "code"), [("bmp", 0), ("webp", 6)])
def test_a_decoder_that_holds_a_picture_twice_is_forecast_with_that(
    yoda, tmp_path, monkeypatch, tiny_checkpoint, kind, code
):
    """A WebP of 38 bytes takes 4.9 GB while it is read."""
    source = save_photo(tmp_path / f"in.{kind}", 100, 100)
    monkeypatch.setattr(forecast, "free_memory_bytes", lambda: 120_000)
    done = yoda("upscale", source, "--model", tiny_checkpoint, "--scale", "0.1", "--dry-run")
    assert done.code == code, done.err


def test_what_memory_does_not_hold_is_streamed_where_it_can_be(
    yoda, tmp_path, monkeypatch, tiny_checkpoint
):
    pytest.importorskip("pyvips")
    save_photo(tmp_path / "in.png", 64, 64)
    monkeypatch.setattr(forecast, "free_memory_bytes", lambda: 1_000_000)
    done = yoda("upscale", tmp_path / "in.png", "--model", tiny_checkpoint, "--json", "-q")
    assert done.code == 0, done.err
    assert "streamed" in json.loads(done.out)["notices"]


@pytest.mark.parametrize("scale", [0.01, 0.5, 0.99])
def test_a_scale_below_one_never_calls_the_network(scale):
    model = fake_model()
    lr = photo(60, 90)
    made = upscale_tensor(lr, model, resolve(UpscaleOptions(scale=scale), model))
    size = (max(1, round(60 * scale)), max(1, round(90 * scale)))
    assert torch.equal(made.image, imresize(lr, size).clamp(0, 1))
    assert (made.calls, made.planned_calls, model.backbone.calls) == (0, 0, 0)


def test_a_reduction_says_so_and_can_be_planned_watched_and_repeated(
    yoda, tmp_path, tiny_checkpoint
):
    save_photo(tmp_path / "in.png", 64, 48)
    common = ["upscale", tmp_path / "in.png", "--model", tiny_checkpoint, "--scale", "0.25"]
    dry = yoda(*common, "--dry-run")
    assert dry.code == 0, dry.err
    assert "12×16" in dry.out
    done = yoda(*common, "--json", "-q", "-o", tmp_path / "out.png")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert (record["width"], record["height"], record["calls"]) == (12, 16, 0)
    assert any("no network is run" in notice for notice in record["notices"])
    watched = yoda(
        *common, "--report", tmp_path / "r.html", "-o", tmp_path / "out2.png",
        "--dump", tmp_path / "dump",
    )  # fmt: skip
    assert watched.code == 2
    assert "below 1" in watched.err


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (40, 1), (13, 90)])
def test_bytes_are_reduced_to_what_floats_are(size):
    pixels = torch.from_numpy(noise(61, 97)).permute(2, 0, 1)[None]
    whole = imresize(pixels.float() / 255, size).clamp(0, 1)
    assert torch.allclose(shrink(pixels, size, together=1000), whole, atol=1e-6)
    assert torch.allclose(shrink(pixels.float() / 255, size), whole, atol=1e-6)


@pytest.mark.slow
def test_a_gigantic_picture_of_one_bit_is_reduced_in_little_memory(yoda, tmp_path, tiny_checkpoint):
    (tmp_path / "b1.png").write_bytes(one_bit_png(16_384))
    done = yoda(
        "upscale", tmp_path / "b1.png", "--model", tiny_checkpoint, "--scale", "0.01", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["peak_mb"] < 1_600
    with Image.open(tmp_path / "b1_tiny_x0.01.png") as made:
        assert made.size == (164, 164)


class Endless(io.RawIOBase):
    """A pipe that never ends, and how much of it was read."""

    def __init__(self, head=b""):
        self.head, self.taken = head, 0

    def read(self, size=-1):
        assert size >= 0, "all of it was asked for"
        part = (self.head[self.taken :] + bytes(size))[:size]
        self.taken += size
        return part


def test_an_endless_input_that_is_no_picture_is_not_read_on():
    endless = Endless()
    with pytest.raises(InputError, match="not a picture"):
        read_stream(endless)
    assert endless.taken <= 1 << 16


def test_an_endless_picture_is_read_no_further_than_memory_allows(monkeypatch):
    monkeypatch.setattr(opening, "MAX_STREAM_BYTES", 10 << 20)
    endless = Endless(sound("BMP"))
    with pytest.raises(InputError, match="longer than"):
        read_stream(endless)
    assert endless.taken <= 12 << 20


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_every_format_comes_through_a_stream(kind):
    data = sound(kind)
    assert torch.equal(read_picture(io.BytesIO(data)).rgb, read_picture(data).rgb)


def test_the_command_line_bounds_its_input_too(yoda, monkeypatch, tiny_checkpoint):
    class Stdin:
        buffer = Endless()

    monkeypatch.setattr(sys, "stdin", Stdin)
    done = yoda("upscale", "-", "--model", tiny_checkpoint)
    assert done.code == 4
    assert "not a picture" in done.err


def test_a_list_of_inputs_that_never_ends_is_refused(yoda, tiny_checkpoint):
    done = yoda("upscale", "--files-from", "/dev/zero", "--model", tiny_checkpoint)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "list" in done.err


class Alive:
    """How many of the things that a function made are alive whenever one more is made."""

    def __init__(self, monkeypatch, name, part=lambda made: made):
        self.made, self.counts, self.part = [], [], part
        self.function = getattr(upscaling_animation, name)
        monkeypatch.setattr(upscaling_animation, name, self)

    def __call__(self, *arguments, **named):
        made = self.function(*arguments, **named)
        return self.each(made) if inspect.isgenerator(made) else self.keep(made)

    def each(self, made):
        for one in made:
            yield self.keep(one)

    def keep(self, one):
        self.made.append(weakref.ref(self.part(one)))
        self.counts.append(sum(reference() is not None for reference in self.made))
        return one


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "AVIF"])
@pytest.mark.parametrize("where", ["here", "worker"])
def test_frames_are_held_a_few_at_a_time(yoda, tmp_path, monkeypatch, tiny_checkpoint, kind, where):
    frames, fast = 8, ["--steps", "1", "--model", tiny_checkpoint]
    decoded = Alive(monkeypatch, "frames_of", itemgetter(0))
    enlarged = Alive(monkeypatch, "upscale_tensor", attrgetter("image"))
    source, target = (tmp_path / f"{name}.{kind.lower()}" for name in ("in", "out"))
    source.write_bytes(animation(kind, frames=frames, height=16, width=20))
    if where == "here":
        done = yoda("upscale", source, *fast, "-o", target, "--json", "-q")
        assert done.code == 0, done.err
        record = json.loads(done.out)
    else:
        options = UpscaleOptions(model=str(tiny_checkpoint), steps=1)
        item = picture.Item(source, target, kind, 20, 16, frames)
        record = Worker.start(options, WriteOptions(), 1).do(item)
    assert record["frames"] == len(decoded.made) == len(enlarged.made) == frames
    assert max(decoded.counts) <= 4  # the first, the one before, and this one
    assert max(enlarged.counts) <= 4
    with Image.open(target) as made:
        assert (made.n_frames, made.size) == (frames, (80, 64))


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_animation_takes_the_memory_of_a_few_of_its_frames(tmp_path, tiny_checkpoint, jobs):
    """Twelve times as many frames take no more memory, in this process's child or its workers."""
    command = [sys.executable, "-m", "yoda_cli", "upscale", "--model", tiny_checkpoint]
    command += ["--steps", "1", "-q", "--json", "-j", str(jobs)]
    peaks = {}
    for frames in (4, 48):
        folder = tmp_path / f"{frames}"
        folder.mkdir()
        for name in ("a.gif", "b.gif"):
            (folder / name).write_bytes(animation("GIF", frames=frames, height=120, width=160))
        done = subprocess.run([*command, folder], capture_output=True, text=True, check=True)
        peaks[frames] = max(json.loads(line)["peak_mb"] for line in done.stdout.splitlines())
    floats = 3 * 480 * 640 * 4 / 1e6  # of one enlarged frame
    assert peaks[48] - peaks[4] < 10 * floats


def test_a_failure_holds_no_pictures_of_its_group(yoda, tmp_path, monkeypatch, tiny_checkpoint):
    """Before, each kept the pictures and results that were in work beside it to the run's end."""
    folder, made, alive = tmp_path / "in", [], []
    folder.mkdir()
    whole = save_photo(tmp_path / "p.png", 4, 4).read_bytes()
    for index in range(160):
        data = whole[: len(whole) // 2] if index % 20 == 7 else whole
        (folder / f"{index}.png").write_bytes(data)
    together = local.compute_together

    def watched(*arguments):
        alive.append(sum(reference() is not None for reference in made))
        results = together(*arguments)
        made.extend(weakref.ref(each) for each in results.values())
        return results

    monkeypatch.setattr(local, "compute_together", watched)
    command = ["upscale", folder, "-o", tmp_path / "out", "--model", tiny_checkpoint]
    assert yoda(*command, "--steps", "1", "-q").code == 4
    assert len(alive) >= 4
    assert max(alive) <= 2 * len(made) / len(alive)


@pytest.mark.slow
def test_ten_thousand_files_take_the_memory_of_a_few(tmp_path, tiny_checkpoint):
    """Every twentieth is damaged; the run's memory at its end is that of its beginning."""
    count, folder = 10_000, tmp_path / "in"
    folder.mkdir()
    whole = save_photo(tmp_path / "p.png", 4, 4).read_bytes()
    for index in range(count):
        name = f"{index:05d}.png"
        (folder / name).write_bytes(whole[: len(whole) // 2] if index % 20 == 7 else whole)
    command = ["upscale", folder, "-o", tmp_path / "out", "--model", tiny_checkpoint]
    with started(*command, "--steps", "1", "-q", "--json") as run:
        out, err = run.communicate()
    records = [json.loads(line) for line in out.splitlines()]
    made = [record["peak_mb"] for record in records if record["status"] == "done"]
    assert (run.returncode, len(made)) == (4, count - count // 20), err[-500:]
    assert err.count(b"yoda: ") == count // 20
    assert max(made[-500:]) - max(made[100:600]) < 30
    again = finished(*command, "--steps", "1", "-q")
    assert again.returncode == 4
    assert again.stdout == b""


def test_the_frames_of_an_animation_are_bounded_together_too(yoda, tmp_path, tiny_checkpoint):
    source = tmp_path / "in.gif"
    source.write_bytes(animation("GIF", frames=12, height=10, width=10))
    command = ["upscale", source, "--model", tiny_checkpoint, "--dry-run", "--max-pixels"]
    refused = yoda(*command, "1.6k")
    assert (refused.code, refused.err.count("\n")) == (4, 1)
    assert "12 frames" in refused.err
    assert yoda(*command, "2k").code == 0
    assert yoda(*command, "1.6k", "-o", tmp_path / "still.png", "--format", "jpg").code == 0


def test_a_damaged_frame_is_met_before_any_work_and_read_where_that_is_asked_for(
    yoda, tmp_path, monkeypatch, tiny_checkpoint
):
    enlarged = Alive(monkeypatch, "upscale_tensor", attrgetter("image"))
    data = bytearray(animation("PNG", frames=4))
    data[bytes(data).rindex(b"fdAT") + 60] ^= 8
    source = tmp_path / "in.png"
    source.write_bytes(mended(bytes(data)))
    command = ["upscale", source, "--model", tiny_checkpoint, "--steps", "1", "--json"]
    refused = yoda(*command, "-q")
    assert (refused.code, refused.err.count("\n"), enlarged.made) == (4, 1, [])
    assert "--accept-damaged" in refused.err
    done = yoda(*command, "--accept-damaged")
    assert done.code == 0, done.err
    assert "in.png: damaged: " in done.err
    assert done.err.count("damaged") == 1
    assert json.loads(done.out)["frames"] == len(enlarged.made) == 4


def limited(gigabytes, *arguments):
    """(exit code, standard error) of a command whose process may have so many addresses."""
    size = int(gigabytes * (1 << 30))

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    with started(*arguments, preexec_fn=limit) as run:
        _, err = run.communicate()
    return run.returncode, err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit addresses")
def test_too_few_addresses_to_load_torch_are_exit_six(tmp_path, tiny_checkpoint):
    source = save_photo(tmp_path / "in.png", 8, 8)
    code, err = limited(0.5, "upscale", source, "--model", tiny_checkpoint)
    assert (code, err.count(b"\n")) == (6, 1), err
    assert b"out of memory" in err
    assert not (tmp_path / "in_tiny_x4.png").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit addresses")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_limit_of_addresses_is_exit_six_or_enough(tmp_path, tiny_checkpoint, jobs):
    """From what torch hardly loads in to what suffices; never a crash, code 1 or code 4."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        save_photo(tmp_path / "in" / name, 500, 500)
    command = ["upscale", tmp_path / "in", "--model", tiny_checkpoint, "-j", jobs, "--no-stream"]
    loaded = subprocess.run(
        [sys.executable, "-c", "import yoda_cli.upscaling.batch.run, psutil; "
         "print(psutil.Process().memory_info().vms)"], capture_output=True, check=True,
    )  # fmt: skip
    base, codes = int(loaded.stdout) / (1 << 30), {}
    for more in (-0.3, 0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        target = tmp_path / f"{jobs}{more}"
        code, err = limited(base + more, *command, "-o", target)
        codes[more] = code, b"Traceback" in err
        assert (code == 0) == (len(list(target.glob("*.png"))) == 2), err
    assert set(codes.values()) == {(0, False), (6, False)}, codes
    assert codes[3.2][0] == 0


def test_reading_out_of_memory_is_a_device_error(monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("yoda_cli.images.reading._still", fail)
    with pytest.raises(DeviceError, match="out of memory"):
        read_picture(sound("PNG"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such device")
@pytest.mark.parametrize("command", [
    ("upscale", "in.png", "--registry"), ("weights", "list", "--registry"),
    ("train", "--data", ".", "-o", "run", "--recipes"),
])  # fmt: skip
def test_settings_without_end_are_refused(yoda, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "in.png", 8, 8)
    done = yoda(*command, "/dev/zero")
    assert done.code in (2, 5)
    assert (done.err.count("\n"), "longer than" in done.err) == (1, True), done.err
