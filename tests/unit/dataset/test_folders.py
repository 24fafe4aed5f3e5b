"""Class folders as people keep them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sat_xception.dataset.folders import check_classes, find_candidates, find_split_candidates
from sat_xception.errors import DataError


@pytest.fixture
def tree(tmp_path):
    """Return a function that makes files, and folders where a name ends with a slash, below a data folder."""

    def make(*names: str, root: str = "data") -> Path:
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        for name in names:
            path = folder / name
            if name.endswith("/"):
                path.mkdir(parents=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return folder

    return make


def found(folder: Path) -> list[tuple[str, str, str]]:
    return sorted((candidate.id, candidate.label, candidate.split) for candidate in find_candidates(folder))


def classes(folder: Path) -> list[str]:
    return check_classes((candidate.label, candidate.split) for candidate in find_candidates(folder))


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        classes(folder)
    return str(caught.value)


# What is found


def test_unsplit_tiles_have_a_class_and_no_split_sorted_by_id(tree):
    folder = tree("school/2.jpg", "school/1.jpg", "not-school/3.jpg", "readme.txt")
    assert found(folder) == [
        ("not-school/3.jpg", "not-school", ""),
        ("school/1.jpg", "school", ""),
        ("school/2.jpg", "school", ""),
    ]
    paths = {candidate.id: candidate.path for candidate in find_candidates(folder)}
    assert paths["school/1.jpg"] == folder / "school" / "1.jpg"


@pytest.mark.parametrize("valid", ["valid", "validation", "val", "Validation", "VAL"])
def test_split_tiles_keep_their_split_under_one_name(tree, valid):
    folder = tree(f"{valid}/school/1.jpg", "train/school/1.jpg", "test/not-school/1.jpg", "train/not-school/1.jpg")
    assert found(folder) == [
        ("test/not-school/1.jpg", "not-school", "test"),
        ("train/not-school/1.jpg", "not-school", "train"),
        ("train/school/1.jpg", "school", "train"),
        ("valid/school/1.jpg", "school", "valid"),
    ]


def test_split_folders_are_known_in_any_case_and_are_never_taken_for_classes(tree):
    folder = tree("Train/a/1.jpg", "Train/b/2.jpg", "Valid/a/3.jpg", "Valid/b/4.jpg", "TEST/a/5.jpg")
    assert classes(folder) == ["a", "b"]
    assert {split for _, _, split in found(folder)} == {"train", "valid", "test"}


def test_the_test_split_may_be_missing(tree):
    assert {split for _, _, split in found(tree("train/a/1.jpg", "valid/a/1.jpg"))} == {"train", "valid"}


@pytest.mark.parametrize("negative", ["not-school", "not_school"])
def test_projects_of_both_spellings_work(tree, negative):
    folder = tree("train/school/1.jpg", f"train/{negative}/1.jpg", "valid/school/1.jpg", f"valid/{negative}/1.jpg")
    assert classes(folder) == [negative, "school"]


def test_three_classes_are_in_order(tree):
    assert classes(tree("b/1.jpg", "a/1.jpg", "c/1.jpg")) == ["a", "b", "c"]


def test_hidden_files_and_folders_are_ignored(tree):
    folder = tree("a/1.jpg", "a/.DS_Store", "b/._1.jpg", "b/2.jpg", ".git/config", "a/.ipynb_checkpoints/1.jpg")
    assert [tile for tile, _, _ in found(folder)] == ["a/1.jpg", "b/2.jpg"]


def test_a_data_folder_below_a_hidden_one_is_not_hidden(tree, tmp_path):
    tree("x/a/1.jpg", "x/b/1.jpg", root=".cache")
    assert len(found(tmp_path / ".cache" / "x")) == 2


def test_files_in_nested_folders_belong_to_the_class_above(tree):
    folder = tree("a/north/z18/1.jpg", "a/1.jpg", "b/train/1.jpg")
    assert found(folder) == [("a/1.jpg", "a", ""), ("a/north/z18/1.jpg", "a", ""), ("b/train/1.jpg", "b", "")]


def test_what_is_no_image_by_its_name_is_considered_too(tree):
    assert len(found(tree("a/notes.txt", "a/1", "b/Thumbs.db"))) == 3


def test_class_folders_and_files_may_be_links(tree, tmp_path):
    folder = tree("a/1.jpg")
    elsewhere = tree("2.jpg", root="elsewhere")
    (folder / "b").symlink_to(elsewhere)
    (folder / "a" / "3.jpg").symlink_to(elsewhere / "2.jpg")
    assert [tile for tile, _, _ in found(folder)] == ["a/1.jpg", "a/3.jpg", "b/2.jpg"]


def test_links_that_lead_nowhere_or_to_a_folder_are_not_lost_in_silence(tree):
    folder = tree("a/1.jpg", "b/1.jpg", "b/more/2.jpg")
    (folder / "a" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "a" / "circle").symlink_to(folder)
    (folder / "a" / "loop").symlink_to(folder / "a" / "loop")
    assert [tile for tile, _, _ in found(folder)] == [
        "a/1.jpg",
        "a/circle",
        "a/gone.jpg",
        "a/loop",
        "b/1.jpg",
        "b/more/2.jpg",
    ]


def test_pipes_and_sockets_are_left_alone(tree):
    folder = tree("a/1.jpg", "b/1.jpg")
    os.mkfifo(folder / "a" / "pipe")
    assert len(found(folder)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_utf8_become_text_and_still_open(tree):
    folder = tree("école/1.jpg", "b/2.jpg")
    (folder / os.fsdecode(b"b/caf\xe9.jpg")).write_text("here")
    (folder / os.fsdecode(b"b/caf\xe8.jpg")).touch()
    tiles = {candidate.id: candidate for candidate in find_candidates(folder)}
    assert sorted(tiles) == ["b/2.jpg", r"b/caf\xe8.jpg", r"b/caf\xe9.jpg", "école/1.jpg"]
    assert tiles[r"b/caf\xe9.jpg"].path.read_text() == "here"
    assert tiles[r"b/caf\xe9.jpg"].source == rf"{folder}/b/caf\xe9.jpg"
    assert tiles["école/1.jpg"].label == "école"


def test_folders_of_the_original_are_splits_by_flag(tree, tmp_path):
    ours = tree("school/1.jpg", "not_school/1.jpg", root="my-train")
    theirs = tree("school/1.jpg", "not_school/1.jpg", root="my-test")
    tiles = sorted(find_split_candidates({"train": ours, "valid": theirs}), key=lambda tile: tile.id)
    assert [tile.id for tile in tiles] == [
        "train/not_school/1.jpg",
        "train/school/1.jpg",
        "valid/not_school/1.jpg",
        "valid/school/1.jpg",
    ]
    assert tiles[2].path == theirs / "not_school" / "1.jpg"


# What is refused


def test_a_missing_folder_is_named_with_the_place_it_was_looked_for(tmp_path):
    assert refusal(tmp_path / "none") == f"no folder at {tmp_path}/none (seen from {Path.cwd()})"
    (tmp_path / "file").touch()
    assert "no folder at" in refusal(tmp_path / "file")


@pytest.mark.parametrize("names", [(), ("1.jpg", "2.jpg"), (".hidden/1.jpg",)])
def test_a_folder_without_class_folders_is_refused(tree, names):
    folder = tree(*names)
    assert refusal(folder) == f"{folder} has no class folders; expected {folder}/<class>/<image>"


def test_a_split_without_class_folders_is_refused(tree):
    folder = tree("train/1.jpg", "valid/a/1.jpg")
    assert refusal(folder).startswith(f"{folder}/train has no class folders")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("school/1.jpg", "empty/"), "found 1 class (school), a classifier needs at least 2"),
        (("a/", "b/"), "found 0 class (none), a classifier needs at least 2"),
        (("train/a/1.jpg", "valid/a/1.jpg"), "found 1 class (a), a classifier needs at least 2"),
    ],
)
def test_fewer_than_two_classes_are_refused(tree, names, told):
    assert refusal(tree(*names)).startswith(told)


def test_splits_beside_classes_are_refused(tree):
    folder = tree("train/a/1.jpg", "valid/a/1.jpg", "school/1.jpg", "extra/1.jpg")
    assert refusal(folder) == f"{folder} mixes splits (train, valid) with other folders (extra, school); keep one kind"


@pytest.mark.parametrize(("there", "needed"), [("train", "valid"), ("valid", "train")])
def test_training_and_validation_are_both_needed(tree, there, needed):
    assert refusal(tree(f"{there}/a/1.jpg", f"{there}/b/1.jpg", "test/a/1.jpg")) == (
        f"there is no {needed} folder beside test, {there}; add one, or remove the splits"
    )


def test_two_folders_for_one_split_are_refused(tree):
    assert refusal(tree("train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg")) == (
        "both 'val' and 'valid' stand for the valid split; keep one"
    )


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_class_that_training_lacks_is_refused_with_the_nearest_name(tree, split):
    other = "test" if split == "valid" else "valid"
    names = ["train/school/1.jpg", "train/not-school/1.jpg", f"{other}/school/1.jpg", f"{split}/not_school/1.jpg"]
    assert refusal(tree(*names)) == (f"class 'not_school' is in {split}/ but not in train/; did you mean 'not-school'?")


def test_a_class_like_none_of_training_lists_what_training_has(tree):
    told = refusal(tree("train/a/1.jpg", "train/b/1.jpg", "valid/zebra/1.jpg"))
    assert told == "class 'zebra' is in valid/ but not in train/; training has a, b"


def test_a_folder_that_may_not_be_listed_is_refused_and_not_skipped():
    # The superuser may list everything, so we look with somebody else's eyes, in a place that they may enter.
    code = (
        "import os, sys; from pathlib import Path; from sat_xception.dataset.folders import find_candidates\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: list(find_candidates(Path(sys.argv[1])))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    with tempfile.TemporaryDirectory() as place:
        closed = Path(place, "a", "closed")
        closed.mkdir(parents=True)
        Path(place).chmod(0o755)
        closed.chmod(0)
        seen = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True, check=True).stdout
        closed.chmod(0o755)
    assert seen == f"DataError can't list the folder {closed}: Permission denied\n"


def test_classes_are_sorted_and_each_named_once():
    assert check_classes([("b", ""), ("a", "train"), ("b", "train")]) == ["a", "b"]


# Tiles that names say


@pytest.mark.parametrize(
    ("name", "tile"),
    [
        ("148544-93322-18", (148544, 93322, 18)),
        ("148544_93322_18", (148544, 93322, 18)),
        ("18-148544-93322", (148544, 93322, 18)),
        ("2018-10-12", None),
        ("12-11-2018", None),
        ("000123", None),
        ("148544-93322-18-b", None),
        ("18-15-17", None),
        ("148544-93322-9", None),
    ],
)
def test_a_name_may_say_which_tile_a_file_is(tree, name, tile):
    (found,) = find_candidates(tree(f"school/{name}.jpg"))
    assert (found.place and (found.place.x, found.place.y, found.place.z)) == tile
