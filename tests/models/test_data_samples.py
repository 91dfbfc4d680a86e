"""Samples depend on the seed and their number alone, and both pictures of a pair are treated alike."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from models.data import images
from models.data.layouts import load_pairs
from models.data.pairs import DataError, Pair
from models.data.samples import StepBatches, TrainingSamples, WholePairs

SIZE = (20, 28)
CROP = 12


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pictures whose pixels tell where they were; the flow of each is a rotation about the top left corner."""
    root = tmp_path_factory.mktemp("pairs") / "train_patches"
    for folder in ("blur", "gt", "aligned", "blur_radius", "flow"):
        (root / folder).mkdir(parents=True)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    for number in range(5):
        where = np.stack([x / 255, y / 255, np.full_like(x, number / 255)], axis=2)
        images.write(root / f"blur/{number}.png", where)
        images.write(root / f"gt/{number}.png", where + np.float32(100 / 255))
        images.write(root / f"aligned/{number}.png", where + np.float32(50 / 255))
        images.write_map(root / f"blur_radius/{number}.tif", x + 100 * y)
        images.write_map(root / f"flow/{number}.tif", np.stack([x, y], axis=2))
    return load_pairs([f"sdd:{root.parent}"], "train", truth=True)


def places(sample):
    """The x and y that each pixel had, and the number of its pair."""
    return (sample["blurry"] * 255).round()


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) if torch.is_tensor(first[key]) else first[key] == second[key]
        for key in first
    )


@pytest.mark.parametrize("number", range(12))
def test_pictures_and_truth_are_cut_and_turned_alike(pairs, number):
    sample = TrainingSamples(pairs, CROP, truth=True)[number]
    for name, channels in {"blurry": 3, "sharp": 3, "aligned": 3, "blur_radius": 1, "flow": 2}.items():
        assert sample[name].shape == (channels, CROP, CROP)
        assert sample[name].dtype == torch.float32
        assert sample[name].is_contiguous()
    assert torch.allclose(sample["sharp"], sample["blurry"] + 100 / 255)
    assert torch.allclose(sample["aligned"], sample["blurry"] + 50 / 255)
    x, y, which = places(sample)
    assert torch.equal(sample["blur_radius"][0], x + 100 * y)
    assert (which == int(sample["name"])).all()
    # A step to the right in the sample is a step in some direction in the picture, and so are the vectors there.
    right, down = (
        places(sample)[:2, 0, 1] - places(sample)[:2, 0, 0],
        places(sample)[:2, 1, 0] - places(sample)[:2, 0, 0],
    )
    assert right.abs().sum() == down.abs().sum() == 1
    vectors = torch.stack([x, y])
    turned = torch.stack([(vectors * right.view(2, 1, 1)).sum(0), (vectors * down.view(2, 1, 1)).sum(0)])
    assert torch.equal(sample["flow"], turned)


def test_crops_flips_and_turns_are_uniform(pairs):
    samples = TrainingSamples(pairs[:1], CROP)
    corners, orientations = [], []
    for number in range(800):
        x, y, _ = places(samples[number])
        corners.append((int(x.min()), int(y.min())))
        orientations.append([float(part[0, 1] - part[0, 0]) for part in (x, y)] + [float(y[1, 0] - y[0, 0])])
        orientations[-1].append(float(x[1, 0] - x[0, 0]))
    for extent, values in zip((SIZE[1], SIZE[0]), zip(*corners, strict=True), strict=True):
        counts = np.bincount(values, minlength=extent - CROP + 1)
        assert len(counts) == extent - CROP + 1
        expected = 800 / len(counts)
        assert ((counts - expected) ** 2 / expected).sum() < 3 * len(counts)  # χ², far in the tail
    _, counts = np.unique(np.array(orientations), axis=0, return_counts=True)
    assert len(counts) == 8
    assert counts.min() > 60


def test_published_crops_lie_top_left_and_are_not_turned(pairs):
    samples = TrainingSamples(pairs[:1], CROP, augmentation="published")
    corners = set()
    for number in range(200):
        x, y, _ = places(samples[number])
        corners.add((int(x[0, 0]), int(y[0, 0])))
        assert (x[0] - x[0, 0]).tolist() == list(range(CROP))
        assert (y[:, 0] - y[0, 0]).tolist() == list(range(CROP))
    assert {corner[0] for corner in corners} == set(range(8))  # of 0 … 16 that fit
    assert {corner[1] for corner in corners} == set(range(4))  # of 0 … 8


def test_each_round_takes_each_pair_once_in_an_order_of_its_own(pairs):
    samples = TrainingSamples(pairs, CROP)
    rounds = [[samples.pair(5 * number + position).name for position in range(5)] for number in range(20)]
    assert all(sorted(names) == ["0", "1", "2", "3", "4"] for names in rounds)
    assert len(set(map(tuple, rounds))) > 10
    other = TrainingSamples(pairs, CROP, seed=1)
    assert [other.pair(number).name for number in range(25)] != [samples.pair(number).name for number in range(25)]


def test_the_same_pair_is_cut_differently_each_time(pairs):
    samples = TrainingSamples(pairs[:1], CROP)
    assert len({tuple(places(samples[number]).flatten().tolist()) for number in range(30)}) > 20


def test_samples_do_not_depend_on_workers_processes_or_restarts(pairs):
    samples = TrainingSamples(pairs, CROP, seed=3)
    steps, batch = 6, 4
    whole = [samples[number] for number in range(steps * batch)]

    def steps_of(workers, **options):
        return list(DataLoader(samples, batch_sampler=StepBatches(batch, steps, **options), num_workers=workers))

    def unbatched(batches):
        return [
            {key: value[index].item() if key == "number" else value[index] for key, value in loaded.items()}
            for loaded in batches
            for index in range(len(loaded["name"]))
        ]

    for loaded in (steps_of(0), steps_of(2)):
        assert all(same(one, other) for one, other in zip(unbatched(loaded), whole, strict=True))
    continued = unbatched(steps_of(0, start=4))
    assert all(same(one, other) for one, other in zip(continued, whole[16:], strict=True))
    shares = [steps_of(0, rank=rank, processes=2) for rank in range(2)]
    interleaved = unbatched(loaded for step in zip(*shares, strict=True) for loaded in step)
    assert all(same(one, other) for one, other in zip(interleaved, whole, strict=True))


def test_batches_count_steps():
    assert list(StepBatches(4, 3, start=1)) == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(StepBatches(4, 3, start=1)) == 2
    assert len(StepBatches(4, 3, start=5)) == 0
    assert list(StepBatches(4, 2, rank=1, processes=2)) == [[2, 3], [6, 7]]
    for batch, processes in ((0, 1), (3, 2)):
        with pytest.raises(ValueError, match=f"a multiple of the {processes} processes, got {batch}"):
            StepBatches(batch, 1, processes=processes)
    with pytest.raises(ValueError, match="rank must be from 0 to 1, got 2"):
        StepBatches(4, 1, rank=2, processes=2)


def test_whole_pairs_come_as_they_are(pairs):
    whole = WholePairs(pairs)
    assert len(whole) == 5
    sample = whole[3]
    assert sample["name"] == "3"
    assert sample["blurry"].shape == (3, *SIZE)
    assert sample["flow"].shape == (2, *SIZE)
    assert sample["blur_radius"][0, 2, 5] == 205


def test_truth_that_not_all_pairs_have_is_left_out(pairs):
    bare = Pair("bare", pairs[0].blurry, pairs[0].sharp, aligned=pairs[0].aligned)
    mixed = WholePairs([bare, pairs[1]])
    assert set(mixed[1]) == {"blurry", "sharp", "aligned", "name", "number"}
    assert set(TrainingSamples(pairs, CROP)[0]) == {"blurry", "sharp", "name", "number"}


def test_what_does_not_fit_is_named(pairs, tmp_path):
    with pytest.raises(DataError, match="got none"):
        TrainingSamples([], CROP)
    with pytest.raises(DataError, match=r"blur/.\.png is 28 × 20 pixels, and must have 24 each way"):
        TrainingSamples(pairs, 24)[0]
    images.write(tmp_path / "other.png", np.zeros((20, 20, 3), np.float32))
    with pytest.raises(DataError, match=r"other\.png and .* differ in size"):
        WholePairs([Pair("a", pairs[0].blurry, tmp_path / "other.png")])[0]
    with pytest.raises(DataError, match="must have 2 channels, and has 1"):
        WholePairs([Pair("a", pairs[0].blurry, pairs[0].sharp, flow=pairs[0].blur_radius)])[0]
