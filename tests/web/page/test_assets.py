"""The fingerprint of the page's files, and the folder that Apache serves."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gptbox.web.page import assets
from gptbox.web.page.assets import Assets, minified, split_fingerprint
from gptbox.web.page.files import STATIC_FOLDER

INDEX = '<link href="static/a.css"><script src="static/b.js"></script><a href="cgi-bin/test">static/b.js</a>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    (folder / "vendor").mkdir(parents=True)
    (folder / "index.html").write_text(INDEX)
    (folder / "a.css").write_text("body { margin: 0 }")
    (folder / "b.js").write_text('import "./vendor/c.js";\n' * 100)
    (folder / "vendor" / "c.js").write_text("c")
    (folder / "noise.png").write_bytes(bytes(os.urandom(1000)))
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_fingerprint_is_of_names_and_contents(folder: Path, tmp_path: Path) -> None:
    first = Assets(folder).page().fingerprint
    assert re.fullmatch("[0-9a-f]{12}", first)
    copy = shutil.copytree(folder, tmp_path / "copy")
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    assert Assets(copy).page().fingerprint == first, "not of times"
    seen = {first}
    for change in (
        lambda: (copy / "b.js").write_text("b"),
        lambda: (copy / "vendor" / "c.js").write_text("d"),
        lambda: (copy / "a.css").rename(copy / "d.css"),
        lambda: (copy / "vendor" / "c.js").rename(copy / "c.js"),
        lambda: (copy / "vendor" / "new.js").touch(),
        lambda: (copy / "vendor" / "new.js").unlink(),
    ):
        change()
        seen.add(Assets(copy).page().fingerprint)
    assert len(seen) == 6, "the last change undid the one before"


def test_the_page_refers_to_the_fingerprint(folder: Path) -> None:
    page = Assets(folder).page()
    assert page.index.decode() == INDEX.replace('="static/', f'="static/{page.fingerprint}/')
    (folder / "index.html").write_text(f"{INDEX}<p>more</p>")
    edited = Assets(folder).page()
    assert edited.fingerprint == page.fingerprint
    assert edited.etag != page.etag
    assert edited.index.endswith(b"<p>more</p>")


def test_an_edit_shows_at_the_next_call(folder: Path) -> None:
    files = Assets(folder)
    first = files.page()
    assert files.page() is first
    before = (folder / "a.css").stat()
    (folder / "a.css").write_text("body { margin: 9 }")
    os.utime(folder / "a.css", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = files.page()
    assert second.fingerprint == Assets(folder).page().fingerprint != first.fingerprint
    assert second.etag != first.etag, "the page refers to other files"
    assert second.fingerprint.encode() in second.index


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("0123456789ab/main.js", ("0123456789ab", "main.js")),
        ("0123456789ab/vendor/a.js", ("0123456789ab", "vendor/a.js")),
        ("main.js", (None, "main.js")),
        ("vendor/a.js", (None, "vendor/a.js")),
        ("0123456789ab", (None, "0123456789ab")),
        ("0123456789a/main.js", (None, "0123456789a/main.js")),
        ("0123456789abc/main.js", (None, "0123456789abc/main.js")),
        ("0123456789AB/main.js", (None, "0123456789AB/main.js")),
        ("0123456789ab\n/main.js", (None, "0123456789ab\n/main.js")),
    ],
)
def test_split_fingerprint(path: str, split: tuple[str | None, str]) -> None:
    assert split_fingerprint(path) == split


def test_the_site_is_written_by_the_module_alone(folder: Path, tmp_path: Path) -> None:
    """As in the build of Apache's image, without gptbox and its dependencies."""
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-I", "-S", assets.__file__, folder, site], check=True, timeout=60)
    page = Assets(folder).page()
    static = f"static/{page.fingerprint}"
    assert (site / "index.html").read_bytes() == page.index
    files = names(folder) - {"index.html"}
    # A copy that is hardly smaller is left out.
    expected = {"index.html", f"{static}/b.js.gz", *(f"{static}/{name}" for name in files)}
    assert names(site) - {"index.html.gz"} == expected
    for name in files:
        assert (site / static / name).read_bytes() == minified(folder, name)
    assert gzip.decompress((site / static / "b.js.gz").read_bytes()) == (folder / "b.js").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "site"),
    [
        ("a.js", '/**\n * What it does: "./a".\n */\nlet a = 1;\n', "let a = 1;\n"),
        ("a.js", "  // Why.\n  b();\n", "  b();\n"),
        ("a.js", "b(); // here\n", "b(); // here\n"),
        ("a.js", "/* c */ d();\n/* e */\n", "/* c */ d();\n"),
        ("a.js", "const url = `https://a\n`;\n", "const url = `https://a\n`;\n"),
        ("a.css", "/* the text */\n\np { color: red; }\n", "\np { color: red; }\n"),
        ("a.svg", "// not a script\n", "// not a script\n"),
    ],
)
def test_the_site_has_no_lines_of_comments(tmp_path: Path, name: str, content: str, site: str) -> None:
    (tmp_path / name).write_text(content)
    assert minified(tmp_path, name).decode() == site


def test_no_line_of_a_text_in_a_script_looks_like_a_comment() -> None:
    """Such as in a template literal, which would lose it."""
    for file in STATIC_FOLDER.glob("*.js"):
        for literal in re.findall(r"`[^`]*`", minified(STATIC_FOLDER, file.name).decode()):
            assert literal in file.read_text(encoding="utf-8")


def test_the_site_of_the_same_files_is_the_same(tmp_path: Path) -> None:
    """Two builds of one version of Apache's image are equal, and the page's own text files are all compressed."""
    one, two = tmp_path / "one", tmp_path / "two"
    for site in (one, two):
        assets.write_site(STATIC_FOLDER, site)
    assert names(one) == names(two)
    for name in names(one):
        assert (one / name).read_bytes() == (two / name).read_bytes()
        assert name.endswith(".gz") or (one / f"{name}.gz").is_file(), name


def test_the_page_names_no_file_without_its_fingerprint() -> None:
    page = Assets(STATIC_FOLDER).page()
    fingerprint = page.fingerprint.encode()
    named = re.findall(rb"[\w\"'(=/.]static/[^\s\"'>]*", page.index)
    assert len(named) > 10
    for address in named:
        assert address.startswith(b'"static/%s/' % fingerprint), address
        assert (STATIC_FOLDER / address.decode().split(f"{page.fingerprint}/")[1]).is_file()


def test_files_refer_to_each_other_by_relative_addresses() -> None:
    for path in STATIC_FOLDER.rglob("*"):
        assert not split_fingerprint(f"{path.relative_to(STATIC_FOLDER).parts[0]}/x")[0], "looks like a fingerprint"
        if path.suffix in (".js", ".css"):
            source = path.read_text(encoding="utf-8")
            assert not re.search(r"[\"'`(]\.?/?static/", source), path.name
            for module in re.findall(r"^(?:import|export)\b[^;]*?\bfrom \"([^\"]+)\"", source, re.MULTILINE):
                assert module.startswith("./"), path.name
                assert (path.parent / module).is_file(), path.name
