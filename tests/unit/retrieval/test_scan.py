"""A folder is listed: pictures under stable keys, everything unusable named, nothing twice."""

import os
import socket
from pathlib import Path

import pytest

import pictures
from retrieval.errors import GalleryError
from retrieval.files import NOT_A_FILE
from retrieval.gallery import read_gallery, scan_folder
from retrieval.records import Listing, Skipped
from unprivileged import run_unprivileged


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def keys(listing: Listing) -> list[str]:
    return [record.key for record in listing.records]


def reasons(skipped: list[Skipped]) -> dict[str, tuple[str, str]]:
    return {one.key: (one.reason, one.cause) for one in skipped}


def test_keys_are_paths_from_the_root_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.png", "z/deep/er.webp", "m/c.gif", "m/B.JPG")
    assert keys(scan_folder(tmp_path)) == ["a.png", "b.jpg", "m/B.JPG", "m/c.gif", "z/deep/er.webp"]


def test_a_record_says_where_how_large_and_how_old(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.jpg").write_bytes(b"12345")
    os.utime(tmp_path / "a" / "b.jpg", ns=(0, 1234567890123456789))
    (record,) = scan_folder(tmp_path).records
    assert (record.path, record.size_bytes, record.mtime_ns) == (str(tmp_path / "a/b.jpg"), 5, 1234567890123456789)
    assert (record.product_id, record.label, record.box, dict(record.metadata)) == (None, None, None, {})


def test_the_listing_names_its_source_and_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listing = scan_folder(".")
    assert (listing.source, listing.kind, listing.records) == (str(tmp_path), "folder", [])
    assert listing.scanned_ns > tmp_path.stat().st_mtime_ns - 10**9


SUFFIXES = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif", "avif"]


@pytest.mark.parametrize("suffix", [*SUFFIXES, "JPG", "Png"])
def test_pictures_are_known_by_their_suffix(suffix: str, tmp_path: Path) -> None:
    touch(tmp_path, f"a.{suffix}")
    assert keys(scan_folder(tmp_path)) == [f"a.{suffix}"]


def test_other_files_and_hidden_names_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "jpg", "a.jpg.part", ".hidden.jpg", ".git/a.jpg", "._a.jpg", "trailing.")
    listing = scan_folder(tmp_path)
    assert (listing.records, listing.skipped, listing.unlisted) == ([], [], [])


def test_a_folder_named_like_a_picture_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg/a.png")
    listing = scan_folder(tmp_path)
    assert (keys(listing), listing.skipped) == (["x.jpg/a.png"], [])


def test_a_prefix_stands_before_every_key(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("nowhere")
    (tmp_path / "c").symlink_to("nowhere")
    listing = scan_folder(tmp_path, key_prefix="shop/")
    found = [*keys(listing), *(one.key for one in listing.skipped), *(one.key for one in listing.unlisted)]
    assert found == ["shop/a.jpg", "shop/b.jpg", "shop/c/"]


def test_names_with_newlines_and_letters_of_any_script_are_ordinary(tmp_path: Path) -> None:
    names = ["new\nline.jpg", "\u00e9t\u00e9.png", "\u5546\u54c1.jpg", "\U0001f600.webp", " .jpg"]
    touch(tmp_path, *names)
    assert sorted(keys(scan_folder(tmp_path))) == sorted(names)


def test_names_that_are_not_utf8_are_set_aside_with_an_escape(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg", os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"d\xff/inside.jpg"))
    listing = scan_folder(tmp_path)
    assert keys(listing) == ["good.jpg"]
    assert set(reasons(listing.skipped)) == {"caf\\udce9.jpg", "d\\udcff"}
    assert {(one.reason, one.cause) for one in listing.skipped} == {("name is not UTF-8; rename it", "decode")}


# Links


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    gallery, elsewhere = tmp_path / "gallery", tmp_path / "elsewhere"
    touch(elsewhere, "a.jpg", "deep/b.jpg")
    gallery.mkdir()
    (gallery / "folder").symlink_to(elsewhere)
    (gallery / "one.jpg").symlink_to(elsewhere / "a.jpg")
    listing = scan_folder(gallery)
    assert keys(listing) == ["one.jpg", "folder/a.jpg", "folder/deep/b.jpg"]
    assert listing.records[1].path == str(gallery / "folder/a.jpg")


def test_each_real_folder_is_listed_once_under_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg")
    (tmp_path / "alias").symlink_to("real")  # sorts first
    assert keys(scan_folder(tmp_path)) == ["real/a.jpg"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    gallery = tmp_path / "around" / "gallery"
    touch(gallery, "b/c.jpg")
    (gallery / "b/up").symlink_to("..")
    (gallery / "itself").symlink_to(gallery)
    (gallery / "around").symlink_to(gallery.parent)
    assert keys(scan_folder(gallery)) == ["b/c.jpg"]


def test_a_broken_link_to_a_picture_is_an_access_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "b.jpg").symlink_to("b.jpg")
    listing = scan_folder(tmp_path)
    assert reasons(listing.skipped) == {"a.jpg": ("broken symlink", "access"), "b.jpg": ("symlink loop", "access")}
    assert listing.unlisted == []


def test_a_broken_link_that_may_be_a_folder_counts_as_unlisted(tmp_path: Path) -> None:
    (tmp_path / "mount").symlink_to("/nowhere/at/all")
    listing = scan_folder(tmp_path)
    assert reasons(listing.unlisted) == {"mount/": ("broken symlink", "access")}
    assert listing.skipped == []


# What must not be opened or entered


def test_pipes_and_sockets_are_set_aside_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # a socket's path may have 100 letters at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        listing = scan_folder(tmp_path)
    assert reasons(listing.skipped) == {"pipe.jpg": (NOT_A_FILE, "decode"), "socket.png": (NOT_A_FILE, "decode")}


def test_an_index_inside_the_gallery_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "index/catalog.sqlite", "index/kept.jpg", "index/pictures/ab/c.jpg")
    assert keys(scan_folder(tmp_path)) == ["a.jpg"]


def test_excluded_folders_and_files_are_passed_over_by_any_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "out/b.jpg", "sheet.png")
    (tmp_path / "link").symlink_to("out")
    listing = scan_folder(tmp_path, exclude=[str(tmp_path / "out"), tmp_path / "sheet.png", "/no/such/place"])
    assert keys(listing) == ["a.jpg"]


def test_unreadable_folders_are_named_and_the_rest_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "locked/b.jpg", "blind/c.jpg")
    (tmp_path / "locked").chmod(0)
    (tmp_path / "blind").chmod(0o444)  # can be listed, but nothing in it examined
    code = """
from retrieval.gallery import scan_folder
listing = scan_folder(sys.argv[1])
print([record.key for record in listing.records])
print([(one.key, one.reason, one.cause) for one in listing.skipped])
print([(one.key, one.reason, one.cause) for one in listing.unlisted])
"""
    child = run_unprivileged(code, tmp_path)
    assert child.stdout.splitlines() == [
        "['a.jpg']",
        "[('blind/c.jpg', 'permission denied', 'access')]",
        "[('locked/', 'permission denied', 'access')]",
    ], child.stderr


# Roots


def test_a_missing_root_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(GalleryError) as refusal:
        scan_folder(tmp_path / "galery")
    assert str(refusal.value) == f"gallery {tmp_path}/galery: no such file; check its name and permissions"


def test_a_file_as_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(pictures.jpeg())
    for read in (scan_folder, read_gallery):
        with pytest.raises(GalleryError, match="is not a folder; pass a folder, or a"):
            read(tmp_path / "a.jpg")


def test_an_unlistable_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gallery").mkdir(mode=0)
    code = """
from retrieval.errors import GalleryError
from retrieval.gallery import scan_folder
try:
    scan_folder(sys.argv[1])
except GalleryError as error:
    print(error)
"""
    assert ": permission denied; check its" in run_unprivileged(code, tmp_path / "gallery").stdout


def test_an_index_as_root_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "catalog.sqlite", "a.jpg")
    with pytest.raises(GalleryError, match="is an index; pass the folder of the pictures"):
        scan_folder(tmp_path)


def test_a_root_whose_name_is_not_utf8_is_refused_with_an_escape(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    with pytest.raises(GalleryError, match=r"caf\\udce9: name is not UTF-8"):
        scan_folder(root)


def test_a_folder_named_like_a_manifest_is_scanned(tmp_path: Path) -> None:
    touch(tmp_path, "list.csv/a.jpg")
    assert keys(read_gallery(tmp_path / "list.csv")) == ["a.jpg"]
