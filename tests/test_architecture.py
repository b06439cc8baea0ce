"""The documentation matches the code: the packages and their order, the paths, the links."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "gptbox"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

MAX_LINES = 420
MAX_PARAMETERS = 12
MAX_ENTRIES = 12

FILE = re.compile(r"`((?:[\w.-]+/)*[\w.-]*\.(?:py|js|css|html|md|svg|toml|yml|conf|example))`")
FOLDER = re.compile(r"`((?:[\w.-]+/)+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    """Markdown without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def packages() -> list[str]:
    """Packages and top-level modules in the order of docs/architecture.md: the first column of its table."""
    section = ARCHITECTURE.read_text(encoding="utf-8").partition("\n## Packages\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def layers() -> Iterator[set[str]]:
    """import-linter's layers, the lowest first; siblings are one set."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (contract for contract in linter["contracts"] if contract["type"] == "layers")
    for layer in reversed(contract["layers"]):
        yield {name.strip() for name in layer.split("|")}


def modules() -> Iterator[Path]:
    for suffix in ("py", "js"):
        yield from PACKAGE.rglob(f"*.{suffix}")


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_packages_are_listed_in_import_order() -> None:
    listed = packages()
    assert len(listed) == len(set(listed))
    for layer in layers():
        assert set(listed[: len(layer)]) == layer
        del listed[: len(layer)]
    assert listed == []


def test_the_listed_packages_are_those_of_gptbox() -> None:
    found = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert set(packages()) == found - {"__init__", "__pycache__"}


@pytest.mark.parametrize("pattern", [FILE, FOLDER], ids=["files", "folders"])
def test_every_path_that_the_architecture_names_exists(pattern: re.Pattern[str]) -> None:
    named = set(pattern.findall(without_code(ARCHITECTURE.read_text(encoding="utf-8"))))
    named -= {"tokenizer.json"}
    assert named
    assert {name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link) or link.endswith(".png"):  # screenshots are made from a running gptbox
            continue
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        if not target.is_file() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_gptbox_has_few_packages_and_top_level_modules() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("__")} - {"py.typed"}
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


def test_no_module_is_long() -> None:
    lengths = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_function_has_many_parameters() -> None:
    many = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
                # The parameters of a command are its options.
                if count > MAX_PARAMETERS and path.parent != PACKAGE / "cli":
                    many[f"{path.relative_to(PACKAGE)}: {node.name}"] = count
    assert many == {}
