"""Tests of lists of images: every kind of source, the order, and what is refused."""

from __future__ import annotations

import io
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files.image_list import ImageRef, list_images
from vit_zoo.files.images import image_files
from vit_zoo.files.stored_list import pieces, store_list


def png(value=0, size=(4, 3)):
    """The bytes of a grey image of one brightness, with a size (width, height)."""
    file = io.BytesIO()
    Image.new("L", size, value).save(file, "png")
    return file.getvalue()


@pytest.fixture
def photos(folder):
    """A folder of images with names that sort differently by text and by parts."""
    for i, name in enumerate(("b/2.png", "b/10.png", "b.png", "a-1/x.PNG", "a/z.png", "a/y/1.png", "c.jpg", "é.png")):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    (folder / "photos" / "notes.md").write_text("none")
    (folder / "photos" / ".hidden.png").write_bytes(png())
    (folder / "photos" / ".git").mkdir()
    (folder / "photos" / ".git" / "a.png").write_bytes(png())
    return folder / "photos"


def names(*sources, **options):
    return [image.name for image in list_images(sources, **options)]


def test_a_folder_has_the_order_of_the_older_reader(photos):
    expected = [path.relative_to(photos).as_posix() for path in image_files(photos) if ".git" not in path.parts]
    assert names("photos") == [f"photos/{name}" for name in expected]
    assert len(expected) == 8
    assert names(photos) == [f"{photos.as_posix()}/{name}" for name in expected]


def test_labels_are_the_top_level_subfolders(photos):
    labels = {image.name: image.label for image in list_images("photos")}
    assert labels["photos/a/y/1.png"] == labels["photos/a/z.png"] == "a"
    assert labels["photos/b.png"] is None


def test_links_are_followed_but_not_in_circles(photos, folder):
    (folder / "more").mkdir()
    (folder / "more" / "m.png").write_bytes(png())
    (photos / "link").symlink_to(folder / "more")
    (photos / "b" / "circle").symlink_to(photos)
    listed = names("photos")
    assert "photos/link/m.png" in listed
    assert len(listed) == 9


def test_sources_keep_their_order(photos):
    (photos.parent / "list.txt").write_text("\ufeffphotos/b.png\n\nphotos/gone.png\r\n", encoding="utf-8")
    assert names("photos/c.jpg", "list.txt", "photos/a") == [
        "photos/c.jpg", "photos/b.png", "photos/gone.png", "photos/a/y/1.png", "photos/a/z.png",
    ]  # fmt: skip


def test_patterns(photos):
    assert names("photos/*.png") == ["photos/b.png", "photos/é.png"]
    assert names("photos/**/*.png") == sorted(
        f"photos/{name}" for name in ("a/y/1.png", "a/z.png", "b/10.png", "b/2.png", "b.png", "é.png")
    )
    assert names("photos/b*") == ["photos/b/10.png", "photos/b/2.png", "photos/b.png"]
    assert names("photos/**") == sorted(name for name in names("photos") if not name.endswith(".md"))
    (photos / "[1].png").write_bytes(png())
    assert names("photos/[1].png") == ["photos/[1].png"]  # a file of that name comes first
    (photos / "list.txt").write_text("b.png\n")
    assert names("photos/*") == names("photos")  # a list among other files is no list
    assert names("photos/*.txt") == ["b.png"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables(photos, suffix):
    columns = {"id": [7, 8], "path": ["b.png", "a/z.png"], "other": ["c.jpg", "é.png"], "kind": ["cat", "dog, or not"]}
    table = photos / f"table.{suffix}"
    if suffix == "csv":
        rows = [",".join(columns), *(f'{a},{b},{c},"{d}"' for a, b, c, d in zip(*columns.values(), strict=True))]
        table.write_text("\ufeff" + "\r\n".join(rows) + "\r\n", encoding="utf-8")
    else:
        pq.write_table(pa.table(columns), table)
    images = list(list_images([table], label_column="kind"))
    assert images == [
        ImageRef("b.png", str(photos / "b.png"), label="cat"), ImageRef("a/z.png", str(photos / "a/z.png"), label="dog, or not")
    ]  # fmt: skip
    assert images[0].read().getpixel((0, 0)) == 2
    assert names(table, column="other") == ["c.jpg", "é.png"]
    with pytest.raises(InputError, match=r"has no column 'pth'; nearest: path"):
        names(table, column="pth")
    with pytest.raises(InputError, match=r"has no column 'class'; there are id, path, other, kind"):
        names(table, label_column="class")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards(photos, form):
    """Members are found where tarfile reads them, also with long names; the label is that of the sample."""
    long = f"./{'d' * 60}/{'e' * 60}/x" if form == tarfile.USTAR_FORMAT else f"{'d' * 120}/{'e' * 120}/x"
    members = [
        ("000.cls", b"3\n"), ("000.png", png(10)), ("001.left.png", png(11)), ("001.txt", b"t"), ("001.right.JPG", png(12)),
        ("001.cls", b"5"), ("a/.hidden.png", png()), ("._x.png", b""), (f"{long}.png", png(13)), ("last.json", b"{}"),
    ]  # fmt: skip
    with tarfile.open("shard.tar", "w", format=form) as archive:
        folder = tarfile.TarInfo("a.png")  # a folder with the name of an image
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "000.png"
        archive.addfile(link)
    images = list(list_images("shard.tar"))
    long_name = long.removeprefix("./")
    assert [image.name for image in images] == [
        f"shard.tar/{name}" for name in ("000.png", "001.left.png", "001.right.JPG", f"{long_name}.png")
    ]
    assert [image.label for image in images] == ["3", "5", "5", None]
    assert [image.read().getpixel((0, 0)) for image in images] == [10, 11, 12, 13]


def test_an_archive_as_tar_writes_it(photos):
    assert os.system("tar cf photos.tar photos") == 0
    listed = {image.name.removeprefix("photos.tar/"): np.asarray(image.read()).mean() for image in list_images("photos.tar")}
    assert listed == {image.name: np.asarray(image.read()).mean() for image in list_images("photos")}


def test_a_large_folder_is_not_read_twice(photos, monkeypatch):
    """Nothing is opened: only folders are read, one at a time."""
    monkeypatch.setattr("builtins.open", None)
    images = list_images("photos")
    assert next(images).name == "photos/a/y/1.png"


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ("gone", InputError, "gone: no such file or folder"),
        ("gone/*.png", InputError, "no file matches this pattern"),
        ("empty", InputError, "empty: contains no images"),
        ("photos/*.md", InputError, "unknown suffix '.md' (a folder, a pattern, .txt, .csv, .parquet and .tar list images)"),
        ("photos/notes.md", InputError, "unknown suffix '.md'"),
        ("empty.txt", InputError, "empty.txt: contains no images"),
        ("latin.txt", InputError, "latin.txt: not a text file in UTF-8"),
        ("latin.csv", InputError, "latin.csv: not a text file in UTF-8"),
        ("short.csv", InputError, "short.csv: line 3 has 1 fields, the header 2"),
        ("many.csv", InputError, "many.csv: has no column 'path', and more than one column (column=NAME names it; there are a"),
        ("quote.csv", InputError, "quote.csv: not a CSV table: line 2"),
        ("empty.csv", InputError, "empty.csv: has no column 'path'"),
        ("text.parquet", InputError, "text.parquet: not a Parquet table"),
        ("numbers.parquet", InputError, "numbers.parquet: column 'path': expected paths, got int"),
        ("text.tar", RefusedContent, "text.tar: cannot be read as a tar archive"),
        ("zipped.tar", RefusedContent, "zipped.tar: cannot be read as a tar archive (truncated header) (compressed"),
        ("cut.tar", RefusedContent, "cut.tar: cannot be read as a tar archive (unexpected end of data)"),
    ],
)  # fmt: skip
def test_what_is_refused(photos, source, error, text):
    (photos.parent / "empty").mkdir()
    contents = {
        "empty.txt": b"\n", "text.parquet": b"PAR1 and more", "empty.csv": b"", "latin.txt": b"\xe9.png",
        "latin.csv": b"path\n\xe9",
        "short.csv": b"path,x\na,b\nc\n", "many.csv": b"a,b\n1,2\n", "quote.csv": b'path\n"a"b\n',
        "text.tar": b"no tar", "zipped.tar": b"\x1f\x8b" + bytes(100),
    }  # fmt: skip
    for name, content in contents.items():
        (photos.parent / name).write_bytes(content)
    pq.write_table(pa.table({"path": [1]}), "numbers.parquet")
    with tarfile.open("cut.tar", "w") as archive:
        archive.add("photos")
    (photos.parent / "cut.tar").write_bytes((photos.parent / "cut.tar").read_bytes()[:5000])
    with pytest.raises(error) as caught:
        names(source)
    assert text in str(caught.value)


def test_columns_apply_to_tables(photos):
    with pytest.raises(InputError, match=r"column='x' applies to CSV and Parquet tables"):
        names("photos", column="x")
    with pytest.raises(InputError, match="no images given"):
        names()


def test_a_member_that_is_cut_off_is_refused(photos):
    with tarfile.open("a.tar", "w") as archive:
        archive.add("photos/b.png")
    (image,) = list_images("a.tar")
    os.truncate("a.tar", image.offset + 10)
    with pytest.raises(RefusedContent, match=r"a.tar/photos/b.png: is truncated"):
        image.read()


def test_stored_lists(photos):
    with tarfile.open("a.tar", "w") as archive:
        archive.add("photos")
    (photos / os.fsdecode(b"\xff.png")).write_bytes(png())
    images = list(list_images(["photos", "a.tar"]))
    count, digest = store_list(photos.parent / "list", images)
    assert count == len(images) == 17
    cut = list(pieces(photos.parent / "list", 5))
    assert [(piece.number, piece.count) for piece in cut] == [(0, 5), (1, 5), (2, 5), (3, 2)]
    stored = [image for piece in cut for image in piece.images()]
    assert stored == [ImageRef(image.name, image.path, image.offset, image.size) for image in images]
    assert store_list(photos.parent / "again", list_images(["photos", "a.tar"])) == (count, digest)
    (photos / "b.png").write_bytes(png(99))  # of the same size
    os.utime(photos / "b.png", ns=(0, 0))
    changed = store_list(photos.parent / "again", images)[1]
    (photos / "b.png").unlink()
    gone = store_list(photos.parent / "again", images)[1]
    assert len({digest, changed, gone, store_list(photos.parent / "again", images[1:])[1]}) == 4
