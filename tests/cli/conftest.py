"""A user's folder, before and after a short training."""

from pathlib import Path

import pytest
from tests.cli.process import gptbox

TEXT = "".join(f"{n} green bottles hanging on the wall, and if {n % 7} should fall\n" for n in range(400))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/bottles."""
    home = tmp_path_factory.mktemp("home")
    (home / "data" / "bottles").mkdir(parents=True)
    (home / "data" / "bottles" / "text.txt").write_text(TEXT)
    return home


@pytest.fixture(scope="session")
def trained(home: Path) -> Path:
    """The same folder, with the run `bottles`."""
    done = gptbox(home, "train", "bottles", "--preset", "lesson", "--steps", "100")
    assert done.returncode == 0, done.stderr
    return home
