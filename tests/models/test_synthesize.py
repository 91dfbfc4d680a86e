"""Synthetic pairs are what their truth says, come out the same however they are made, and bad input is refused."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from models.__main__ import main
from models.data import images
from models.data.layouts import load_pairs
from models.data.samples import WholePairs
from models.synthesis import dataset, motion, pairs, photographs
from models.synthesis.defocus import to_linear
from models.synthesis.photographs import INSTALLED, Original
from models.synthesis.settings import Settings

pytestmark = pytest.mark.slow

QUIET = Settings(patch=96, blur=4, misalignment=3, noise=0)
SMALL = ["--patch", "32", "--blur", "2", "--misalignment", "2", "--workers", "1"]


def smooth_photograph(size=(140, 150), seed=0):
    """Detail that splines can follow, so that resampling it is exact enough to measure displacements."""
    noise = np.random.default_rng(seed).random((*size, 3), np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2)
    return (blurred - blurred.min()) / (blurred.max() - blurred.min())


def inside(picture, border):
    return picture[border:-border, border:-border]


def psnr(first, second):
    return float(-10 * np.log10(np.mean((first - second) ** 2)))


@pytest.mark.parametrize("seed", range(6))
def test_the_flow_leads_from_the_aligned_to_the_misaligned_picture(seed):
    pair = pairs.make_pair(smooth_photograph(seed=seed), None, QUIET, np.random.default_rng(seed))
    lined_up = motion.sampled(pair.sharp, pair.flow)
    assert psnr(inside(lined_up, 5), inside(pair.aligned, 5)) > 55
    assert psnr(inside(pair.sharp, 5), inside(pair.aligned, 5)) < 40
    assert psnr(inside(motion.sampled(pair.sharp, -pair.flow), 5), inside(pair.aligned, 5)) < 35


def test_the_flow_is_right_for_photographs_too():
    photograph, disparity = Original("motorcycle").load()
    pair = pairs.make_pair(photograph, disparity, replace(QUIET, patch=200), np.random.default_rng(1))
    lined_up = motion.sampled(pair.sharp, pair.flow)
    assert psnr(inside(lined_up, 8), inside(pair.aligned, 8)) > psnr(pair.sharp, pair.aligned) + 10


def test_coordinates_are_x_right_and_y_down():
    """Independently of the functions under test: OpenCV moves the picture."""
    pair = pairs.make_pair(smooth_photograph(), None, QUIET, np.random.default_rng(3))
    y, x = np.mgrid[: QUIET.patch, : QUIET.patch].astype(np.float32)
    moved = cv2.remap(pair.sharp, x + pair.flow[..., 0], y + pair.flow[..., 1], cv2.INTER_CUBIC)
    assert psnr(inside(moved, 5), inside(pair.aligned, 5)) > 40


@pytest.mark.parametrize("seed", range(5))
def test_the_blur_radius_is_that_of_a_point_of_light(seed):
    settings = replace(QUIET, patch=61)
    extent = settings.patch + 2 * settings.margin
    light = np.zeros((extent, extent, 3), np.float32)
    light[extent // 2, extent // 2] = 1
    disparity = np.tile(np.linspace(0, 0.02, extent, dtype=np.float32), (extent, 1))
    disparity[:8], disparity[-8:] = 0, 1  # far from the point, to make the radius there differ from seed to seed
    pair = pairs.make_pair(light, disparity, settings, np.random.default_rng(seed))
    spot = to_linear(pair.blurry)[..., 1]
    y, x = np.mgrid[: settings.patch, : settings.patch] - settings.patch // 2
    radius = np.sqrt((spot * (x**2 + y**2)).sum() / spot.sum())
    assert pair.blur_radius[30, 30] == pytest.approx(radius, abs=0.15)
    assert pair.blur_radius.max() <= settings.blur / 2**0.5 + 1e-3


def test_without_misalignment_nothing_moves():
    pair = pairs.make_pair(smooth_photograph(), None, replace(QUIET, misalignment=0), np.random.default_rng(0))
    assert not pair.flow.any()
    assert np.allclose(pair.sharp, pair.aligned, atol=1e-5)


def test_without_blur_the_blurry_picture_is_the_aligned_one():
    pair = pairs.make_pair(smooth_photograph(), None, replace(QUIET, blur=0), np.random.default_rng(0))
    assert not pair.blur_radius.any()
    assert np.allclose(pair.blurry, pair.aligned, atol=1e-5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("misalignment", "patch"), [(2.0, 96), (12.0, 96)])
def test_flows_have_the_size_asked_for_and_can_be_inverted(seed, misalignment, patch):
    generator = np.random.default_rng(seed)
    disparity = np.zeros((140, 140), np.float32)
    disparity[40:90, 50:] = 1  # the hardest edge
    flow = motion.random_flow(disparity, misalignment, patch, generator)
    largest = np.hypot(*np.moveaxis(flow[22:118, 22:118], 2, 0)).max()
    assert 0.5 * misalignment <= largest <= misalignment + 1e-3
    steps = [np.linalg.norm(np.diff(flow, axis=axis), axis=2).max() for axis in (0, 1)]
    assert max(steps) < 0.9, "folds where it changes by a pixel each pixel"
    inverse = motion.inverse_flow(flow)
    there_and_back = inverse + motion.sampled(flow, inverse, order=1)
    assert np.abs(inside(there_and_back, 20)).max() < 0.01


def test_random_depth_is_smooth_but_for_edges_of_the_picture():
    photograph = np.full((120, 160, 3), 0.2, np.float32)
    photograph[:, 80:] = 0.8
    edges = 0
    for seed in range(20):
        disparity = pairs.random_disparity(photograph, np.random.default_rng(seed))
        assert disparity.shape == (120, 160)
        assert (disparity.min(), disparity.max()) == (0, 1)
        steps = np.abs(np.diff(disparity, axis=1))
        assert np.median(steps) < 0.03
        edges += np.median(steps[:, 76:84].max(axis=1)) > 0.1
    assert 5 <= edges < 20, "most, not all, have an edge where the picture has one"


def test_noise_is_that_of_photons():
    for light, expected in ((1.0, 0.05), (0.25, 0.025), (0.0, 0.0)):
        seen = pairs.noisy(np.full((300, 300), light, np.float32), 0.05, np.random.default_rng(0))
        assert seen.std() == pytest.approx(expected, rel=0.03)
        assert seen.mean() == pytest.approx(light, abs=1e-3)


def test_detail_is_preferred_to_blue_sky():
    photograph = smooth_photograph((200, 400))
    photograph[:, :200] = 0.5
    lefts = [pairs._detailed_window(photograph, 64, np.random.default_rng(seed))[1].start for seed in range(200)]
    assert np.mean([left > 136 for left in lefts]) > 0.7
    assert min(lefts) < 136


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs of the installed photographs."""
    out = tmp_path_factory.mktemp("pairs")
    assert main(["synthesize", "--out", str(out), "--patches", "3", *SMALL]) == 0
    return out


def contents(folder: Path):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pairs_and_truth_load_as_sdd(folder):
    train, test = (load_pairs([f"sdd:{folder}"], split, truth=True, decode=True) for split in ("train", "test"))
    assert (len(train), len(test)) == (21, 6)
    photographs = [{pair.name.rpartition("_")[0] for pair in pairs} for pairs in (train, test)]
    assert photographs[0].isdisjoint(photographs[1])
    assert photographs[0] | photographs[1] == set(INSTALLED)
    sample = WholePairs(test)[0]
    shapes = {name: tuple(value.shape[-3:]) for name, value in sample.items() if name not in ("name", "number")}
    assert shapes == {
        "blurry": (3, 32, 32),
        "sharp": (3, 32, 32),
        "aligned": (3, 32, 32),
        "blur_radius": (1, 32, 32),
        "flow": (2, 32, 32),
    }
    described = json.loads((folder / "synthesis.json").read_text())
    assert described["settings"]["misalignment"] == 2
    assert set(described["photographs"]["test"]) == photographs[1]
    assert described["with_disparity"] == ["motorcycle"]


def test_they_repeat_with_any_number_of_processes(folder, tmp_path):
    arguments = [*SMALL[:-1], "2"]
    assert main(["synthesize", "--out", str(tmp_path), "--patches", "3", *arguments]) == 0
    assert contents(tmp_path) == contents(folder)


def test_another_seed_makes_other_pairs_of_the_same_photographs(folder, tmp_path):
    assert main(["synthesize", "--out", str(tmp_path), "--patches", "1", "--seed", "1", *SMALL]) == 0
    first, second = contents(folder), contents(tmp_path)
    assert set(second) < set(first)
    assert not [name for name in second if first[name] == second[name]]


def test_it_goes_on_where_it_was_killed(folder, tmp_path):
    arguments = ["synthesize", "--out", str(tmp_path), "--patches", "3", *SMALL[:-1], "2"]
    process = subprocess.Popen([sys.executable, "-m", "models", *arguments], stderr=subprocess.PIPE)
    while process.poll() is None and len(list(tmp_path.rglob("*.png"))) < 7:
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=120)  # returns once all that share its output have ended: its other processes too
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*/flow/*.tif")}
    assert len(before) < 27
    assert main([*arguments[:-1], "1"]) == 0
    assert {name: data for name, data in contents(tmp_path).items() if not name.endswith(".part")} == contents(folder)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was there is not made again"


def test_more_patches_are_added_and_other_settings_refused(folder, tmp_path, capsys):
    assert main(["synthesize", "--out", str(tmp_path), "--patches", "1", *SMALL]) == 0
    assert main(["synthesize", "--out", str(tmp_path), "--patches", "3", *SMALL]) == 0
    assert contents(tmp_path) == contents(folder)
    capsys.readouterr()
    arguments = ["synthesize", "--out", str(tmp_path), *SMALL, "--noise", "0.5", "--test", "coffee"]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "noise was 0.01 and is 0.5" in message
    assert "test was" in message
    assert contents(tmp_path) == contents(folder)


def test_pairs_take_the_scales_in_turn_at_which_a_photograph_is_large_enough(photos, tmp_path, capsys):
    """By the spacing of stripes, 12 pixels in the photographs."""
    for name, size in (("large.png", (160, 160)), ("small.png", (60, 160))):
        stripes = 0.5 + 0.4 * np.sin(np.arange(size[1]) * 2 * np.pi / 12)
        images.write(photos / name, np.tile(stripes[None, :, None].astype(np.float32), (size[0], 1, 3)))
    options = ["--photos", str(photos), "--out", str(tmp_path / "out"), *SMALL, "--scale", "1", "0.5", "--noise", "0"]
    command = ["synthesize", *options, "--test", "a", "--patches"]
    assert main([*command, "1"]) == main([*command, "5"]) == 0
    for name, expected in (("large", [12, 6, 12, 6, 12]), ("small", [12] * 5)):
        spacings = []
        for index in range(5):
            row = images.read(tmp_path / f"out/train_patches/aligned/{name}_{index:05d}.png").pixels[16, :, 1]
            spectrum = np.abs(np.fft.rfft(row - row.mean(), 32 * 12))
            spacings.append(32 * 12 / np.argmax(spectrum))
        assert spacings == pytest.approx(expected, rel=0.1), name
    assert json.loads((tmp_path / "out/synthesis.json").read_text())["settings"]["scale"] == [1, 0.5]
    assert main([*command, "5", "--scale", "1"]) == 2
    assert "scale was [1.0, 0.5] and is [1.0]" in capsys.readouterr().err


def test_each_scale_of_a_photograph_is_loaded_once(photos, tmp_path, monkeypatch):
    loaded = []
    load = Original.load
    monkeypatch.setattr(photographs.Original, "load", lambda self, scale=1: loaded.append(scale) or load(self, scale))
    monkeypatch.setattr(dataset, "problem_of", lambda *_: None)  # loads all of them, to see that they decode
    settings = Settings(patch=32, patches=2 * dataset.CHUNK + 1, blur=1, misalignment=1, scale=(1, 0.9, 0.8))
    dataset.write_dataset(photographs.find_originals(photos, None), settings, tmp_path / "out")
    assert loaded == 2 * [1, 0.9, 0.8]


def test_the_test_has_patches_of_its_own_size_and_number(photos, tmp_path, capsys):
    command = ["synthesize", "--photos", str(photos), "--out", str(tmp_path / "out"), *SMALL, "--patches", "2"]
    assert main([*command, "--test-patch", "48", "--test-patches", "3"]) == 0
    assert "test: 3 pairs of 1 photographs" in capsys.readouterr().out
    for split, count, size in (("train", 2, 32), ("test", 3, 48)):
        pairs = load_pairs([f"sdd:{tmp_path / 'out'}"], split, truth=True)
        assert len(pairs) == count
        assert all(images.read_size(pair.blurry) == (size, size) for pair in pairs)
    assert main([*command, "--test-patch", "48", "--test-patches", "4"]) == 0, "more may be added"
    assert main(command) == 2
    assert "test_patch was 48 and is 32" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "other"), "--test-patch", "64"]) == 2
    assert "is 80 × 70 pixels, and must have 76 each way: the patch, and 6 around it" in capsys.readouterr().err


def test_any_folder_of_photographs_with_disparities_where_there_are(tmp_path):
    photos, disparities, out = tmp_path / "photos", tmp_path / "disparities", tmp_path / "out"
    photos.mkdir()
    disparities.mkdir()
    sizes = {"a.jpg": (90, 120), "b.png": (100, 90), "c.tif": (120, 120)}
    for seed, (name, size) in enumerate(sizes.items()):
        images.write(photos / name, smooth_photograph(size, seed), images.Encoding(16))
    plane = np.tile(np.linspace(3, 30, 120, dtype=np.float32), (120, 1))
    plane[30:40, 50:60] = np.nan
    images.write_map(disparities / "c.tif", plane)
    options = ["--photos", str(photos), "--disparity", str(disparities), "--out", str(out), "--scale", "0.8"]
    assert main(["synthesize", *options, *SMALL, "--patches", "2", "--bits", "16", "--test", "c"]) == 0
    described = json.loads((out / "synthesis.json").read_text())
    assert described["photographs"] == {"train_patches": ["a", "b"], "test": ["c"]}
    assert described["with_disparity"] == ["c"]
    radius = images.read_map(out / "test/blur_radius/c_00000.tif")
    assert np.isfinite(radius).all()
    # The disparity changes along the rows only, but for its hole.
    assert np.median(np.abs(np.diff(radius, axis=0))) == 0
    assert np.median(np.abs(np.diff(radius, axis=1))) > 0.01
    assert images.read(out / "test/blur/c_00000.png").encoding.depth == 16


def test_test_photographs_are_chosen_by_their_names():
    originals = [Original(f"photo{number}") for number in range(20)]
    splits = photographs.split_photographs(originals, Settings())
    assert len(splits["test"]) == 4
    assert splits["train_patches"] + splits["test"] != originals, "not simply the last"
    assert photographs.split_photographs(originals[::-1], Settings(seed=5))["test"] == splits["test"][::-1]
    for fraction, expected in ((0, 1), (1, 19)):
        assert len(photographs.split_photographs(originals, Settings(test_fraction=fraction))["test"]) == expected


def test_the_installed_photographs_come_as_rgb_grey_ones_alike_in_all_channels():
    grey = ("brick", "camera", "coins", "grass", "gravel")
    for name in INSTALLED:
        photograph, _ = Original(name).load()
        assert photograph.shape == (*Original(name).size(), 3)
        difference = np.abs(photograph[..., 0] - photograph[..., 2]).mean()
        assert difference == 0 if name in grey else difference > 0.02, name
    assert Original("motorcycle").load(0.5)[1].shape == (250, 370)
    assert Original("astronaut").size(0.5) == (256, 256)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        images.write(folder / name, smooth_photograph((70, 80)))
    return folder


def test_everything_wrong_with_photographs_is_told_before_any_work(photos, tmp_path, capsys):
    images.write(photos / "small.png", smooth_photograph((40, 80)))
    cut = photos / "cut.png"
    cut.write_bytes((photos / "a.png").read_bytes()[:-100])
    (tmp_path / "disparities").mkdir()
    images.write_map(tmp_path / "disparities/b.tif", np.ones((70, 79), np.float32))
    images.write_map(tmp_path / "disparities/a.tif", np.full((70, 80), np.nan, np.float32))
    out = tmp_path / "out"
    options = ["--photos", str(photos), "--disparity", str(tmp_path / "disparities"), "--out", str(out)]
    assert main(["synthesize", *options, *SMALL]) == 2
    message = capsys.readouterr().err
    assert "small.png is 80 × 40 pixels, and must have 44 each way: the patch, and 6 around it" in message
    assert "cut.png does not decode" in message
    assert "b.tif is (70, 79), and" in message
    assert "a.tif must be finite somewhere" in message
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--misalignment", "5"], "--misalignment must be at most 4, an eighth of the patch, got 5"),
        (["--patch", "64", "--test-patch", "32", "--misalignment", "5"], "--misalignment must be at most 4"),
        (["--disparity", "."], "--disparity needs --photos"),
        (["--photos", "absent"], "absent cannot be read: No such file"),
        (["--photos", "PHOTOS/one"], "must hold 2 photographs at least, one to train on and one to test, got 0"),
        (["--photos", "PHOTOS", "--disparity", "PHOTOS/one"], "unpaired.png has no photograph in"),
        (["--photos", "PHOTOS/same"], "has several files named a"),
        (["--test", "nobody"], "--test names a photograph that is not there: nobody"),
        (["--test", *INSTALLED], "at least one photograph must be left to train on"),
        (["--out", "/dev/null/pairs"], "cannot write to /dev/null/pairs: Not a directory"),
    ],
)
def test_bad_input_gets_one_error_before_any_work(photos, tmp_path, capsys, options, message):
    for folder, names in (("one", ()), ("same", ("a.png", "a.jpg", "b.png"))):
        (photos / folder).mkdir()
        for name in names:
            images.write(photos / folder / name, smooth_photograph((70, 80)))
    if "PHOTOS/one" in options and "--disparity" in options:
        (photos / "one/unpaired.png").touch()
    options = [option.replace("PHOTOS", str(photos)) for option in options]
    out = tmp_path / "out"
    assert main(["synthesize", "--out", str(out), *SMALL, *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("python -m models synthesize: error: ")
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --out"),
        (["--out", "x", "--patch", "0"], "--patch: must be an integer from 32 to 4096, got '0'"),
        (["--out", "x", "--noise", "much"], "--noise: must be a number from 0 to 1, got 'much'"),
        (["--out", "x", "--bits", "12"], "--bits: invalid choice: 12"),
        (["--out", "x", "--scale", "1", "2"], "--scale: must be a number from 0.01 to 1, got '2'"),
    ],
)
def test_impossible_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["synthesize", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_it_needs_no_torch():
    """Each process loads what it imports, and torch takes seconds."""
    code = "import sys, models.tasks.synthesize; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_the_photographs_are_those_of_scikit_image():
    assert np.allclose(Original("coffee").load()[0], skimage.data.coffee() / 255, atol=1e-6)


def test_layered_scenes_come_with_what_is_hidden(tmp_path):
    options = [
        "--patch",
        "48",
        "--patches",
        "2",
        "--blur",
        "2",
        "--misalignment",
        "6",
        "--shift",
        "2",
        "--workers",
        "1",
    ]
    grey = ["--test", "brick", "camera", "coins", "grass", "gravel", "rocket", "motorcycle"]
    assert main(["synthesize", "--scenes", "--out", str(tmp_path), *options, *grey]) == 0
    (pair, *_) = load_pairs([f"sdd:{tmp_path}"], "train", truth=True, decode=True)
    assert set(pair.truth) == {"aligned", "blur_radius", "flow"}
    root = tmp_path / "train_patches"
    hidden, displaced = [], []
    for path in sorted((root / "visible").iterdir()):
        visible = images.read(path).pixels[..., 0]
        assert set(np.unique(visible)) <= {0, 1}
        hidden.append(float((visible == 0).mean()))
        flow = images.read_map(root / "flow" / f"{path.stem}.tif")
        displaced.append(float(np.hypot(*np.moveaxis(flow, 2, 0)).max()))
    assert max(hidden) > 0.01
    assert 2 < max(displaced) < 6 + 2 * 2**0.5 + 48 * 0.02 + 1
