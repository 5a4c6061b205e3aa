"""The layout's rules, read from the source: who may import whom, and what each folder may hold.

Every import counts: at the top of a module, inside a function, and for types alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from whisperbench.cli.generate import ENTRY_POINTS

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = PROJECT / "src"
LIBRARY = SOURCE / "whisperbench"
FLOWS = PROJECT / "flows"


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

HEAVY = {
    "ctranslate2",
    "datasets",
    "faster_whisper",
    "librosa",
    "matplotlib",
    "mlflow",
    "optuna",
    "ray",
    "torch",
    "transformers",
    "vllm",
    "whisper",
}
"""Libraries that no module imports before a function needs them: they take seconds, or touch a GPU."""

INSIDE_VLLM = {
    f"src/whisperbench/engines/vllm/{name}.py" for name in ("model", "attention", "fp8_encoder", "fp8_kernels")
}
"""Modules with classes of vLLM and torch, which are imported only where vLLM already runs."""


class Import(NamedTuple):
    """`module` is the dotted name, down to a submodule of the project; `at_once`: on importing `path`."""

    path: str
    line: int
    module: str
    at_once: bool

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


def modules() -> list[Path]:
    return sorted([*LIBRARY.rglob("*.py"), *FLOWS.rglob("*.py")])


def imports_of(path: Path) -> list[Import]:
    return list(imports_in(path.read_text(encoding="utf-8"), path.relative_to(PROJECT).as_posix()))


def imports_in(text: str, name: str) -> Iterator[Import]:
    """Every import of the module `name`, wherever it stands in it."""

    def inside(node: ast.AST, at_once: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(name, child.lineno, alias.name, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name}:{child.lineno}: a relative import"
                for alias in child.names:
                    yield Import(name, child.lineno, _resolved(str(child.module), alias.name), at_once)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types(child):
                yield from inside(child, False)
            else:
                yield from inside(child, at_once)

    return inside(ast.parse(text), True)


def _resolved(module: str, name: str) -> str:
    """`from package import submodule` is an import of the submodule."""
    home = (SOURCE if module.startswith("whisperbench") else PROJECT).joinpath(*module.split("."))
    return f"{module}.{name}" if (home / f"{name}.py").exists() or (home / name / "__init__.py").exists() else module


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def every_import() -> list[Import]:
    return [each for path in modules() for each in imports_of(path)]


def test_every_import_is_read() -> None:
    """At the top, for types alone, in a method, and of a submodule by its name."""
    text = """
import os.path
from whisperbench.config.benchmark import BenchmarkConfig
if TYPE_CHECKING:
    import mlflow
class Engine:
    from whisperbench.corpus import audio, corpus
    async def start(self):
        with self:
            import vllm.config
"""
    assert [(each.module, each.part, each.at_once) for each in imports_in(text, "here.py")] == [
        ("os.path", "", True),
        ("whisperbench.config.benchmark", "config", True),
        ("mlflow", "", False),
        ("whisperbench.corpus.audio", "corpus", True),
        ("whisperbench.corpus.corpus", "corpus", True),
        ("vllm.config", "", False),
    ]


def test_imports_run_one_way() -> None:
    """From left to right in `ORDER`."""
    rank = {name: place for place, names in enumerate(ORDER) for name in names}
    backwards = {
        (each.path.removeprefix("src/whisperbench/"), each.module.removeprefix("whisperbench."))
        for each in every_import()
        if each.path.startswith("src/") and each.part in rank and home_of(each.path) in rank
        if rank[each.part] > rank[home_of(each.path)]
    }
    assert not backwards


def home_of(path: str) -> str:
    """The package or module of whisperbench that a file belongs to."""
    return path.removeprefix("src/whisperbench/").split("/")[0].removesuffix(".py")


def test_nothing_in_the_library_imports_a_flow() -> None:
    """The library runs without a terminal: in a notebook, or in an actor of a cluster."""
    wrong = [str(each) for each in every_import() if each.top == "flows" and each.path.startswith("src/")]
    assert not wrong, listed(wrong)


def test_libraries_are_imported_where_they_belong() -> None:
    """One place alone knows the tracking server, the engine, the terminal and the command line."""
    wrong = [
        str(each)
        for each in every_import()
        for library, place in IMPORTED_IN.items()
        if each.top == library and not re.fullmatch(place, each.path)
    ]
    assert not wrong, listed(wrong)


def test_subpackages_of_engines_are_imported_by_start_alone() -> None:
    """A subpackage of engines sees the modules of engines, and no other subpackage."""
    subpackages = ("vllm", "others", "parallel")
    wrong = []
    for each in every_import():
        names = each.module.split(".")
        if names[:2] != ["whisperbench", "engines"] or len(names) < 3 or names[2] not in subpackages:
            continue
        if each.path.startswith(f"src/whisperbench/engines/{names[2]}/") or each.path in STARTS:
            continue
        wrong.append(str(each))
    assert not wrong, listed(wrong)


STARTS = {
    "src/whisperbench/doctor.py",
    "src/whisperbench/engines/start.py",
    "src/whisperbench/sweep/parallel_cluster.py",
}
"""Which modules import the subpackages of engines: `start`, and what is to go through it."""


def test_importing_a_module_is_cheap() -> None:
    """Heavy libraries are imported by the function that needs them, so that `--help` answers at once."""
    wrong = [
        str(each) for each in every_import() if each.at_once and each.top in HEAVY and each.path not in INSIDE_VLLM
    ]
    assert not wrong, listed(wrong)


def test_a_package_says_what_it_is_and_does_nothing() -> None:
    """`__init__.py` holds the charter alone; the topmost one has the version too."""
    for path in modules():
        if path.name != "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        rest = [ast.unparse(node).partition(" = ")[0] for node in tree.body[1:]]
        if path.parent != LIBRARY / "cli":  # the group of the commands
            assert rest == (["__version__"] if path.parent == LIBRARY else []), path


def test_flows_are_entry_points_of_under_80_lines() -> None:
    """One module per entry point of MLproject, and nothing else beside them."""
    found = {path.stem: lines_of(path) for path in FLOWS.glob("*.py") if path.name != "__init__.py"}
    assert {f"flows.{name}" for name in found} == {module for module, _ in ENTRY_POINTS.values()}
    assert {name: lines for name, lines in found.items() if lines >= 80} == {}


def listed(wrong: list[str]) -> str:
    return "\n" + "\n".join(wrong)


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
