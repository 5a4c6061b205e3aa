"""The rules of the layout, read from the source: who may import whom, and what each folder may hold.

Every import counts: at the top of a module, inside a function, and for types alone.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

from whisperbench.cli.generate import ENTRY_POINTS

PROJECT = Path(__file__).resolve().parents[2]
LIBRARY, FLOWS = PROJECT / "src/whisperbench", PROJECT / "flows"

ORDER: tuple[set[str], ...] = (
    {"constants", "errors", "text", "files", "util", "progress", "processes", "stats"},
    {"config"},
    {"corpus", "checkpoint"},
    {"engines"},
    {"measure"},
    {"results"},
    {"tracking", "compare", "preparation"},
    {"benchmark", "comparison", "doctor"},
    {"sweep"},
    {"cli"},
    {"__main__"},
)
"""Packages and modules of the library: each imports itself, those of its own set, and what stands before it."""

IMPORTED_IN = {
    "mlflow": r"src/whisperbench/tracking/.+",
    "vllm": r"src/whisperbench/engines/vllm/\w+\.py",
    "ray": r"src/whisperbench/engines/parallel/\w+\.py",
    "faster_whisper": r"src/whisperbench/engines/others/faster_whisper\.py",
    "ctranslate2": r"src/whisperbench/engines/others/faster_whisper\.py",
    "whisper": r"src/whisperbench/engines/others/openai_whisper\.py",
    "transformers": r"src/whisperbench/(checkpoint/.+|engines/(vllm/features|others/hf_transformers)\.py)",
    "rich": r"src/whisperbench/cli/.+",
    "click": r"(src/whisperbench/cli|flows)/.+",
}
"""Libraries that one place alone knows."""


class Import(NamedTuple):
    """`module` is the dotted name of what is imported."""

    path: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"

    @property
    def top(self) -> str:
        """The library that is imported."""
        return self.module.partition(".")[0]

    @property
    def part(self) -> str:
        """The package or module of whisperbench that is imported; empty for anything else."""
        names = self.module.split(".")
        return names[1] if names[0] == "whisperbench" and len(names) > 1 else ""

    @property
    def home(self) -> str:
        """The package or module of whisperbench that imports; empty for an entry point."""
        found = re.match(r"src/whisperbench/(\w+)", self.path)
        return found[1] if found else ""


def imports_of(path: Path) -> list[Import]:
    name, tree, found = path.relative_to(PROJECT).as_posix(), ast.parse(path.read_text(encoding="utf-8")), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            found += [Import(name, node.lineno, prefix + alias.name) for alias in node.names]
    return found


IMPORTS = [each for folder in (LIBRARY, FLOWS) for path in sorted(folder.rglob("*.py")) for each in imports_of(path)]


def test_imports_run_one_way() -> None:
    """From left to right in `ORDER`; the library imports no flow, so it runs without a terminal."""
    rank = {name: place for place, names in enumerate(ORDER) for name in names}
    assert rank.keys() <= {each.home for each in IMPORTS} | {"constants"}
    backwards = [each for each in IMPORTS if each.home and each.top == "flows"]
    backwards += [each for each in IMPORTS if rank.get(each.part, 0) > rank.get(each.home, len(ORDER))]
    assert not backwards, listed(backwards)


def test_libraries_are_imported_where_they_belong() -> None:
    """One place alone knows the tracking server, the engine, the terminal and the command line."""
    wrong = [each for each in IMPORTS if each.top in IMPORTED_IN and not re.fullmatch(IMPORTED_IN[each.top], each.path)]
    assert not wrong, listed(wrong)


def test_subpackages_of_engines_are_imported_by_start_alone() -> None:
    """A subpackage of engines sees the modules of engines, and no other subpackage."""
    wrong = []
    for each in IMPORTS:
        if found := re.match(r"whisperbench\.engines\.(vllm|others|parallel)\b", each.module):
            inside = each.path.startswith(f"src/whisperbench/engines/{found[1]}/")
            wrong += [] if inside or each.path in STARTS else [each]
    assert not wrong, listed(wrong)


STARTS = {
    "src/whisperbench/doctor.py",
    "src/whisperbench/engines/start.py",
    "src/whisperbench/sweep/parallel.py",
}
"""Which modules import the subpackages of engines: `start`, and what is to go through it."""


def test_a_package_does_nothing() -> None:
    """`__init__.py` holds a docstring; the topmost one also has the version, and that of cli the commands."""
    for path in {*LIBRARY.rglob("__init__.py")} - {LIBRARY / "__init__.py", LIBRARY / "cli/__init__.py"}:
        assert len(ast.parse(path.read_text(encoding="utf-8")).body) == 1, path


def test_each_flow_is_an_entry_point() -> None:
    """One module for each entry point of MLproject, and nothing else beside them."""
    found = {f"flows.{path.stem}" for path in FLOWS.glob("*.py")} - {"flows.__init__"}
    assert found == {module for module, _ in ENTRY_POINTS.values()}


def listed(wrong: list[Import]) -> str:
    return "\n" + "\n".join(map(str, wrong))
