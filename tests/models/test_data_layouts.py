"""Pairs are found in the folders of every layout, and what is wrong with them is told by name, all of it."""

from pathlib import Path

import numpy as np
import pytest

from models.data import images
from models.data.layouts import LAYOUTS, find_pairs, load_pairs, parse_source
from models.data.pairs import DataError, Pair, hold_out

# The layout, the split, and files: blurry and sharp ones as they pair, in order.
TREES = [
    ("sdd", "train", [("train_patches/blur/a.png", "train_patches/gt/a.png"), ("train_patches/blur/b.png",) * 2]),
    ("sdd", "test", [("test/blur/a.jpg", "test/gt/a.png")]),
    (
        "dpdd",
        "val",
        [
            ("dd_dp_dataset_png/val_c/source/1P0A0917.png", "dd_dp_dataset_png/val_c/target/1P0A0916.png"),
            ("dd_dp_dataset_png/val_c/source/1P0A0920.png", "dd_dp_dataset_png/val_c/target/1P0A0919.png"),
        ],
    ),
    ("dpdd", "test", [("test_c/source/1P0A0917.png", "test_c/target/1P0A0916.png")]),
    ("dpdd-repacked", "train", [("DPDD/train_c/source/1.png", "DPDD/train_c/target/1.png")]),
    ("dpdd-repacked", "test", [("test/DPDD/inputC/x.png", "test/DPDD/target/x.png")]),
    ("dpdd-repacked", "test", [("inputC/0917.png", "target/0916.png"), ("inputC/0921.png", "target/0920.png")]),
    ("realdof", "test", [("source/1.png", "target/1.png"), ("source/10.png", "target/10.png")]),
    (
        "lfdof",
        "train",
        [
            ("train_data/input/IMG_1/near.png", "train_data/ground_truth/IMG_1.png"),
            ("train_data/input/IMG_1/far.png", "train_data/ground_truth/IMG_1.png"),
            ("train_data/input/IMG_22/near.png", "train_data/ground_truth/IMG_22.png"),
        ],
    ),
    ("lfdof", "test", [("input/IMG_7/1.png", "ground_truth/IMG_7.png")]),
    ("ded", "train", [("image/image_3.jpg", "sharp/left_3.jpg"), ("image/image_13.jpg", "sharp/f_8_13.jpg")]),
]


def write(path: Path, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, np.full((*size, 3), 0.5, np.float32))


@pytest.mark.parametrize(("layout", "split", "tree"), TREES)
def test_layouts_as_on_disk(tmp_path, layout, split, tree):
    tree = [(blurry, sharp.replace("/blur/", "/gt/")) for blurry, sharp in tree]
    for path in {path for pair in tree for path in pair}:
        write(tmp_path / path)
    pairs = load_pairs([f"{layout}:{tmp_path}"], split, decode=True)
    assert {(pair.blurry, pair.sharp) for pair in pairs} == {(tmp_path / a, tmp_path / b) for a, b in tree}
    assert len({pair.name for pair in pairs}) == len(pairs)
    assert pairs == load_pairs([f"{layout}/{split}:{tmp_path}"], "train")


def test_a_plain_pair_of_folders(tmp_path):
    for path in ("soft/a.tif", "soft/b.png", "crisp/a.jpg", "crisp/b.png"):
        write(tmp_path / path)
    pairs = load_pairs([f"folders:{tmp_path / 'soft'},{tmp_path / 'crisp'}"], "test")
    assert [(pair.name, pair.blurry.name, pair.sharp.name) for pair in pairs] == [
        ("a", "a.tif", "a.jpg"),
        ("b", "b.png", "b.png"),
    ]


def test_several_sources_come_one_after_another(tmp_path):
    write(tmp_path / "source/1.png")
    write(tmp_path / "target/1.png")
    write(tmp_path / "test/blur/2.png")
    write(tmp_path / "test/gt/2.png")
    pairs = load_pairs([f"sdd:{tmp_path}", f"realdof:{tmp_path}"], "test")
    assert [pair.name for pair in pairs] == ["2", "1"]


def test_the_truth_is_found_where_it_is(tmp_path):
    for name in ("a", "b"):
        for folder in ("blur", "gt", "aligned"):
            write(tmp_path / "test" / folder / f"{name}.png")
    for folder, shape in (("blur_radius", (6, 8)), ("flow", (6, 8, 2))):
        (tmp_path / "test" / folder).mkdir()
        for name in ("a", "b"):
            images.write_map(tmp_path / "test" / folder / f"{name}.tif", np.zeros(shape, np.float32))
    pairs = load_pairs([f"sdd:{tmp_path}"], "test", truth=True, decode=True)
    assert {name: path.name for name, path in pairs[1].truth.items()} == {
        "aligned": "b.png",
        "blur_radius": "b.tif",
        "flow": "b.tif",
    }
    (tmp_path / "test/flow/a.tif").unlink()
    write(tmp_path / "test/aligned/b.png", (6, 7))
    with pytest.raises(DataError, match=r"blur/a\.png has no partner in .*flow"):
        load_pairs([f"sdd:{tmp_path}"], "test")
    images.write_map(tmp_path / "test/flow/a.tif", np.zeros((6, 8, 2), np.float32))
    with pytest.raises(DataError, match=r"aligned/b\.png is 7 × 6 pixels, and .*blur/b\.png is 8 × 6"):
        load_pairs([f"sdd:{tmp_path}"], "test", truth=True)
    load_pairs([f"sdd:{tmp_path}"], "test")


def test_everything_wrong_is_told_at_once(tmp_path):
    for name in ("fine", "sizes", "broken", "short", "small", "twice"):
        write(tmp_path / f"test/blur/{name}.png", (5, 30) if name == "small" else (30, 40))
        write(tmp_path / f"test/gt/{name}.png", (5, 30) if name == "small" else (30, 40))
    write(tmp_path / "test/gt/sizes.png", (30, 41))
    (tmp_path / "test/gt/broken.png").write_text("no picture")
    short = (tmp_path / "test/blur/short.png").read_bytes()
    (tmp_path / "test/blur/short.png").write_bytes(short[:-20])
    with pytest.raises(DataError) as caught:
        load_pairs([f"sdd:{tmp_path}", f"realdof:{tmp_path}/absent", "ssd:x"], "test", smallest=16, decode=True)
    for number, expected in enumerate(
        [
            "realdof:.*absent is not a folder",
            "LAYOUT must be one of sdd, dpdd, .*, got 'ssd'",
            r"gt/broken.png does not decode",
            r"blur/short.png does not decode",
            r"gt/sizes.png is 41 × 30 pixels, and .*blur/sizes.png is 40 × 30",
            r"blur/small.png is 30 × 5 pixels, and must have at least 16 each way",
            r"gt/small.png is 30 × 5 pixels, and must have at least 16 each way",
        ]
    ):
        with pytest.raises(DataError, match=expected):
            raise caught.value
        assert len(caught.value.problems) > number
    assert len(caught.value.problems) == 7
    assert "7 problems" in str(caught.value)
    assert "fine.png" not in str(caught.value)

    # Heads alone do not show that a file is cut short.
    with pytest.raises(DataError) as caught:
        load_pairs([f"sdd:{tmp_path}"], "test", smallest=16)
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("layout", "paths", "messages"),
    [
        ("sdd", ["test/blur/a.png", "test/gt/b.png"], ["blur/a.png has no partner", "gt/b.png has no partner"]),
        ("sdd", ["test/blur/a.png", "test/gt/a.png", "test/gt/a.jpg"], ["only one can be paired"]),
        ("dpdd", ["test_c/source/a.png", "test_c/target/b.png", "test_c/target/c.png"], ["has 1 pictures .* has 2"]),
        ("realdof", ["source/a.png", "source/b.png", "target/b.png"], ["source/a.png has no partner"]),
        (
            "lfdof",
            ["input/IMG_1/a.png", "input/IMG_2/a.png", "ground_truth/IMG_2.png", "ground_truth/IMG_3.png"],
            ["input/IMG_1 has no partner", "ground_truth/IMG_3.png has no partner"],
        ),
        (
            "ded",
            ["image/image_1.jpg", "image/image_2.jpg", "sharp/a_2.jpg", "sharp/b_2.jpg", "sharp/a_3.jpg"],
            ["image_1.jpg has no partner", "b_2.jpg is in the place of .*a_2.jpg", "a_3.jpg has no partner"],
        ),
        ("sdd", ["test/blur/notes.txt/a.png", "test/gt/notes.txt/a.png"], ["holds no pictures"]),
        ("realdof", ["source/a.png"], ["there must be source with target, or RealDOF/source with RealDOF/target"]),
        ("sdd/train", ["test/blur/a.png", "test/gt/a.png"], ["there must be train_patches/blur with"]),
    ],
)
def test_what_does_not_pair_is_named(tmp_path, layout, paths, messages):
    for path in paths:
        write(tmp_path / path)
    with pytest.raises(DataError) as caught:
        find_pairs(parse_source(f"{layout}:{tmp_path}"), "test")
    assert len(caught.value.problems) == len(messages)
    for message in messages:
        with pytest.raises(DataError, match=message):
            raise caught.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data", "LAYOUT:DIR or LAYOUT/SPLIT:DIR, got 'data'"),
        ("sdd:", "LAYOUT:DIR or LAYOUT/SPLIT:DIR, got 'sdd:'"),
        ("sdd/val:data", "SPLIT must be one of train, test, got 'val'"),
        ("folders/test:a,b", "folders has no splits"),
        ("folders:a", "takes two"),
    ],
)
def test_notation(text, message):
    with pytest.raises(DataError, match=message):
        parse_source(text)


def test_notation_there_and_back():
    for text in ("sdd:data/SDD", "dpdd/val:data", "folders:a,b"):
        assert str(parse_source(text)) == text
    assert parse_source("sdd:C:/data").folders == (Path("C:/data"),)


def test_a_split_that_a_layout_lacks_is_refused(tmp_path):
    with pytest.raises(DataError, match="sdd has the splits train, test, and no val"):
        load_pairs([f"sdd:{tmp_path}"], "val")
    with pytest.raises(DataError, match="there must be a source of pairs"):
        load_pairs([], "train")


def test_every_layout_is_tested():
    assert {tree[0] for tree in TREES} | {"folders"} == set(LAYOUTS)


def test_pairs_are_held_apart():
    pairs = [Pair(str(number), Path("a"), Path("b")) for number in range(10)]
    training, validation = hold_out(pairs, 0.2)
    assert training + validation == pairs
    assert len(validation) == 2
    assert [len(part) for part in hold_out(pairs, 0.01)] == [9, 1]
    assert [len(part) for part in hold_out(pairs, 0.99)] == [1, 9]
    with pytest.raises(ValueError, match="of at least 2"):
        hold_out(pairs[:1], 0.5)


def scene(seed):
    return np.repeat(np.repeat(np.random.default_rng(seed).random((4, 4, 3), np.float32), 12, 0), 12, 1)


def test_numbers_pair_as_numbers_and_unrelated_pairs_are_told(tmp_path):
    for folder, names in (("source", ("a1", "a2", "a10")), ("target", ("b01", "b02", "b10"))):
        (tmp_path / folder).mkdir()
        for seed, name in enumerate(names):
            images.write(tmp_path / folder / f"{name}.png", scene(seed))
    pairs = load_pairs([f"realdof:{tmp_path}"], "test")
    assert [(pair.blurry.stem, pair.sharp.stem) for pair in pairs] == [("a1", "b01"), ("a2", "b02"), ("a10", "b10")]
    for seed, name in enumerate(("b01", "b02", "b10")):
        images.write(tmp_path / "target" / f"{name}.png", scene(seed + 10))
    with pytest.warns(UserWarning, match=r"look unrelated, as .*a1\.png with .*b01\.png: their likeness is -?0\."):
        load_pairs([f"realdof:{tmp_path}"], "test")


def test_names_pair_however_their_letters_are_composed(tmp_path):
    import unicodedata

    for folder, form in (("blur", "NFC"), ("gt", "NFD")):
        (tmp_path / "test" / folder).mkdir(parents=True)
        images.write(tmp_path / "test" / folder / f"{unicodedata.normalize(form, 'Gärten')}.png", scene(0))
    (tmp_path / "test/aligned").mkdir()
    images.write(tmp_path / "test/aligned" / f"{unicodedata.normalize('NFD', 'Gärten')}.png", scene(0))
    (tmp_path / "test/aligned").joinpath(unicodedata.normalize("NFD", "Gärten") + ".png").rename(
        tmp_path / "test/aligned" / (unicodedata.normalize("NFD", "Gärten") + ".PNG")
    )
    (pair,) = load_pairs([f"sdd:{tmp_path}"], "test", truth=True)
    assert pair.sharp.exists()
    assert pair.aligned.suffix == ".PNG"


def test_one_folder_for_both_sides_is_refused(tmp_path):
    images.write(tmp_path / "a.png", scene(0))
    with pytest.raises(DataError, match=r"blurry and sharp pictures must lie in two folders, got .* for both"):
        load_pairs([f"folders:{tmp_path},{tmp_path}"], "test")


def test_photographs_are_no_pairs_but_in_training(tmp_path):
    with pytest.raises(DataError, match="names photographs, of which only training makes pairs"):
        load_pairs([f"photographs:{tmp_path}"], "test")


def test_a_source_may_lie_in_the_home_folder_and_stand_alone(tmp_path, monkeypatch):
    from models.training.config import load_config

    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_source("sdd:~/data").folders == (tmp_path / "data",)
    assert parse_source("folders:~/a,~/b").folders == (tmp_path / "a", tmp_path / "b")
    assert load_config("reblur", ["data.train=sdd:~/data"]).data.train == ("sdd:~/data",)
