"""The report on a text's health: what is said of whole texts, and that it is stored with them."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pytest

from gptbox.datasets.base import Corpus
from gptbox.datasets.health import HealthReport, outlook
from gptbox.datasets.prepared import PreparedDataset, prepare
from gptbox.datasets.squeezed_text import SqueezedText
from gptbox.datasets.text_file import read_files
from gptbox.models.runs import RunFolder

WORDS = ["the", "a", "of", "and", "to", "in", "that", "he", "was", "for", "it", "with", "as", "his", "on", "be", "at"]


def prose(words: int, seed: int) -> str:
    """Random words, 12 a line."""
    chosen = np.random.default_rng(seed).choice(WORDS, words)
    return "".join(" ".join(chosen[i : i + 12]) + "\n" for i in range(0, words, 12))


def report_on(corpus: Corpus) -> HealthReport:
    with TemporaryFile() as file:
        text = SqueezedText(corpus, int(corpus.summary.characters * 0.9), file)
        for _ in text.corpus:
            pass
        return HealthReport.of(text, "letters")


@pytest.fixture
def health(tmp_path: Path) -> Callable[..., HealthReport]:
    """The report on files with these contents: 0.txt, 1.txt …"""

    def examine(*contents: str) -> HealthReport:
        files = [tmp_path / f"{i}.txt" for i in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.write_text(content, encoding="utf-8", newline="")
        return report_on(read_files("letters", files, "a test"))

    return examine


def visible(text: str) -> int:
    return len("".join(text.split()))


def test_tiny_shakespeare_has_no_repeated_passage(tiny_shakespeare: Path) -> None:
    report = report_on(read_files("shakespeare", [tiny_shakespeare], "Tiny Shakespeare"))
    assert (report.copied, report.val_in_train, report.first_repeat, report.odd) == (0, 0, None, ())
    assert report.lines() == [
        "size: 1,115,394 characters, 1,115,394 bytes",
        "alphabet: 65 different characters",
        "repeated passages: none of 200 characters or more, white space ignored",
    ]


def test_half_of_a_doubled_text_is_repeated(tiny_shakespeare: Path) -> None:
    text = tiny_shakespeare.read_text(encoding="utf-8")
    report = report_on(Corpus.from_text(text + text, "Tiny Shakespeare, twice"))
    assert report.copied == visible(text) == report.visible // 2
    assert report.val_in_train == report.val_visible > 80_000
    lines = text.count("\n")
    assert report.findings() == [
        "repeated passages: 50 % of the text has occurred before, 905,502 characters in passages of 200 or more, "
        "white space ignored",
        "first repeated passage: 905,502 characters from line 1 of Tiny Shakespeare, twice, again from line "
        f"{lines + 1:,} of Tiny Shakespeare, twice: First Citizen: Before we proceed any further, hear me speak. …",
        "validation text: 100 % of it is in the training text, too, in such passages; the validation loss will be "
        "lower than on new text",
    ]


def test_a_page_that_is_in_each_document_is_counted_from_the_second_on(health: Callable[..., HealthReport]) -> None:
    page = prose(200, 0).replace("\n", "!\n")
    report = health(*(f"{prose(300, seed)}§{page}§{prose(300, 100 + seed)}" for seed in range(1, 11)))
    # The words beside the page may be the same by chance.
    assert 9 * (visible(page) + 2) <= report.copied < 9 * (visible(page) + 30)
    assert report.first_repeat is not None
    assert (report.first_repeat.document, report.first_repeat.again_document) == ("0.txt", "1.txt")
    assert (report.first_repeat.line, report.first_repeat.again_line) == (26, 26)
    assert 0 < report.val_in_train < report.val_visible
    assert report.lines()[0].endswith(", 10 documents")


def test_white_space_and_line_endings_make_no_difference(health: Callable[..., HealthReport]) -> None:
    passage = prose(400, 1)
    other = passage.replace("\n", "\r\n").replace(" the ", "\t the\n\n")
    joined = "".join(passage.split())
    report = health(passage + prose(500, 2), prose(500, 3) + "§" + other, prose(500, 4) + "§" + joined + prose(3000, 5))
    assert report.copied >= 2 * visible(passage)
    first = report.first_repeat
    assert first is not None
    assert (first.document, first.line, first.again_document, first.again_line) == ("0.txt", 1, "1.txt", 43)
    assert first.length >= visible(passage)
    assert report.val_in_train == 0
    assert report.findings()[-1] == "validation text: no such passage of it is in the training text"


@pytest.mark.parametrize(("length", "repeated"), [(199, False), (200, True)])
def test_passages_count_from_200_characters(health: Callable[..., HealthReport], length: int, repeated: bool) -> None:
    passage = "".join(chr(0x4E00 + i) for i in range(length))
    report = health(f"a {passage} b", f"c {passage} d")
    assert report.copied == (200 if repeated else 0)


def test_odd_characters_are_named_with_their_first_places(health: Callable[..., HealthReport]) -> None:
    report = health("one\n\x07two\u200b\n", "\ufffd\x07\n", "".join(map(chr, range(0xE000, 0xE018))))
    (line,) = (line for line in report.lines() if line.startswith("odd"))
    assert line.startswith(
        "odd characters: U+0007 (2 x, first in line 2 of 0.txt), "
        "U+200B ZERO WIDTH SPACE (1 x, first in line 2 of 0.txt), \ufffd (1 x, first in line 1 of 1.txt), "
        "U+E000 (1 x, first in line 1 of 2.txt), "
    )
    assert line.endswith("of 2.txt) and 7 more")


def test_a_text_of_white_space_has_a_report() -> None:
    report = report_on(Corpus.from_text("\n \n" * 500, "nothing"))
    assert (report.visible, report.copied) == (0, 0)
    assert report.findings() == ["repeated passages: none of 200 characters or more, white space ignored"]


def test_a_validation_text_of_white_space_is_no_error() -> None:
    text = prose(200, 0)
    report = report_on(Corpus.from_text(text + text + "\n" * len(text), "a test"))
    assert (report.copied, report.val_visible) == (visible(text), 0)
    assert report.findings()[-1] == "validation text: no such passage of it is in the training text"


class TestOutlook:
    def test_a_small_text_is_learned_by_heart(self) -> None:
        assert outlook(9000, 1000, "character") == [
            "outlook: too small to learn more than by heart; a run of five minutes on two cores reads it about 889 "
            "times"
        ]

    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [
            (190_000, "too small to learn more than by heart"),
            (210_000, "good for a model of five minutes, too small for one of hours"),
            (2_600_000, "good for a model of five minutes, too small for one of hours"),
            (2_700_000, "large enough for a model of hours"),
        ],
    )
    def test_a_larger_one_is_good_for_more(self, tokens: int, expected: str) -> None:
        assert expected in outlook(tokens, tokens // 9, "token")[0]

    def test_a_run_may_read_a_part_only(self) -> None:
        assert outlook(90_000_000, 10_000_000, "byte")[0].endswith("on two cores reads about 8.9 % of it")
        assert outlook(4000, 400, "byte", run_tokens=4000)[0].endswith("on two cores reads about 100 % of it")

    def test_a_text_that_is_too_short_for_the_context_is_named_with_its_longest(
        self, data: Path, run: RunFolder
    ) -> None:
        prepared = prepare("letters", run, data)
        longest = "too short for a context of 256 characters: the validation text has 20, enough for a context of 19"
        assert longest in prepared.describe()
        prepared.require_context(19)
        assert outlook(180, 257, "token", context_length=180)[0].endswith("enough for a context of 179")
        assert len(outlook(1000, 257, "token")) == 1


class TestStored:
    def test_it_is_read_again(self, data: Path, run: RunFolder) -> None:
        text = prose(300, 0)
        (data / "letters" / "a.txt").write_text(text + "\x07", encoding="utf-8")
        (data / "letters" / "b.txt").write_text(text, encoding="utf-8")
        prepared = prepare("letters", run, data)
        assert prepared.health is not None
        assert prepared.health.first_repeat is not None
        assert len(prepared.health.odd) == 1
        assert prepared.health == PreparedDataset.load(run.dataset).health
        lines = prepared.health_lines()
        assert [line.lower() for line in lines[:-2]] == [line.lower() for line in prepared.health.lines()]
        assert all(line[0].isupper() for line in lines)
        assert set(prepared.health.findings()) < set(prepared.describe())
        names = ["meta.json", "train.bin", "train.ngrams", "val.bin"]
        assert sorted(file.name for file in run.dataset.iterdir()) == names

    def test_fields_of_later_versions_are_ignored(self, data: Path, run: RunFolder) -> None:
        prepared = prepare("letters", run, data)
        meta = json.loads((run.dataset / "meta.json").read_text())
        meta["health"]["mood"] = "good"
        (run.dataset / "meta.json").write_text(json.dumps(meta))
        assert PreparedDataset.load(run.dataset).health == prepared.health

    def test_older_datasets_have_none(self, data: Path, run: RunFolder) -> None:
        prepare("letters", run, data)
        meta = json.loads((run.dataset / "meta.json").read_text())
        del meta["health"]
        (run.dataset / "meta.json").write_text(json.dumps(meta))
        older = PreparedDataset.load(run.dataset)
        assert older.health is None
        assert older.health_lines() == []
        assert any(line.startswith("outlook: ") for line in older.describe())

    @pytest.mark.parametrize("broken", [{}, [], {"odd": 7}, None])
    def test_a_damaged_report_is_a_damaged_dataset(self, data: Path, run: RunFolder, broken: object) -> None:
        prepare("letters", run, data)
        meta = json.loads((run.dataset / "meta.json").read_text())
        (run.dataset / "meta.json").write_text(json.dumps(meta | {"health": broken}))
        prepare("letters", run, data)
        assert PreparedDataset.load(run.dataset).health is not None


def test_it_is_plain_json(tiny_shakespeare: Path) -> None:
    text = tiny_shakespeare.read_text(encoding="utf-8")
    report = report_on(Corpus.from_text(text + "\ufffd" + text, "twice"))
    assert HealthReport.from_json(json.loads(json.dumps(asdict(report)))) == report
    assert replace(report, copied=0) != report


PREPARE = """
import re, sys, time
from pathlib import Path
from gptbox.datasets.health import HealthReport
from gptbox.datasets.squeezed_text import SqueezedText
from gptbox.datasets.text_file import read_files
from tempfile import TemporaryFile
corpus = read_files("letters", sorted(Path(sys.argv[1]).iterdir()), "a test")
began = time.process_time()
with TemporaryFile(dir=Path(sys.argv[1]).parent) as file:
    text = SqueezedText(corpus, int(corpus.summary.characters * 0.9), file)
    for _ in text.corpus:
        pass
    report = HealthReport.of(text, "letters")
seconds = time.process_time() - began
# Not ru_maxrss, which also counts the process that started this one.
peak_kb = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text()).group(1))
print(report.copied, report.visible, seconds, peak_kb / 1000)
"""


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", ["words", "doubled", "headers", "pages", "period", "chinese"])
def test_100_mb_take_less_than_a_minute_and_200_mb_of_memory(tmp_path: Path, kind: str) -> None:
    (tmp_path / "text").mkdir()
    write_text(tmp_path / "text", kind)
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, tmp_path / "text"], capture_output=True, text=True, check=True
    )
    copied, characters, seconds, megabytes = map(float, done.stdout.split())
    print(f"{kind}: {copied / characters:.1%} of {characters:,.0f} characters, {seconds:.1f} s, {megabytes:.0f} MB")
    assert seconds < 60
    assert megabytes < 200


def write_text(folder: Path, kind: str) -> None:
    """About 100 MB of text, in 10 files."""
    random = np.random.default_rng(0)
    sizes = random.integers(2, 10, 20_000)
    first = 0x4E00 if kind == "chinese" else 97
    words = ["".join(map(chr, random.integers(first, first + 26, size))) for size in sizes]
    ranks = lambda n: (20_000 * random.random(n) ** 3).astype(np.int64)  # noqa: E731
    page = " ".join(words[i] for i in ranks(600))
    for i in range(10):
        parts = []
        size = 0
        while size < 10_000_000:
            some = " ".join(words[j] for j in ranks(1000)) + "\n"
            if kind == "headers":  # 190 characters, too few to be a repeated passage, every 400
                header = page[:220]
                some = "".join(f"{header}\n{some[k : k + 250]}\n" for k in range(0, len(some), 250))
            elif kind == "pages":
                some = page + "\n" + some
            elif kind == "period":
                some = "0123456789\n" * 1000
            parts.append(some)
            size += len(some.encode())
        name = folder / f"{i:02}.txt"
        name.write_text("".join(parts), encoding="utf-8")
        if kind == "doubled" and i >= 5:
            name.write_bytes((folder / f"{i - 5:02}.txt").read_bytes())
