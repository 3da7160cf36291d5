"""Which module imports which? Read from the syntax trees, nothing is executed."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    """One import: of a module, or of a name in a module (then the module is what stands before the last dot)."""

    importer: str
    target: str
    line: int
    is_at_load: bool  # runs when the importer is loaded: not inside a function, not under TYPE_CHECKING

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def read_sources(root: Path, packages: Iterable[str]) -> dict[str, str]:
    """Module name -> source, for every module of the packages under `root`; a package stands for its `__init__`."""
    sources = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            sources[name] = path.read_text("utf-8")
    return sources


def find_imports(sources: Mapping[str, str]) -> list[Import]:
    """Every import of every module; the target is the longest name in it that is a module of `sources`, or foreign."""
    found, ours = [], {name.partition(".")[0] for name in sources}
    for importer, source in sources.items():
        is_package = any(name.startswith(f"{importer}.") for name in sources)
        for node, is_at_load in _statements(ast.parse(source), is_at_load=True):
            for target in _targets(node, importer, is_package):
                is_ours = target.partition(".")[0] in ours
                name = target.rpartition(".")[0] if is_ours and target not in sources else target
                found.append(Import(importer, name, node.lineno, is_at_load))
    return list(dict.fromkeys(found))  # several names of one module are one import


def _statements(node: ast.AST, is_at_load: bool) -> Iterator[tuple[ast.stmt | ast.expr, bool]]:
    for child in ast.iter_child_nodes(node):
        at_load = is_at_load and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            at_load = False
        if isinstance(child, ast.Import | ast.ImportFrom | ast.Call):
            yield child, at_load
        yield from _statements(child, at_load)


def _targets(node: ast.stmt | ast.expr, importer: str, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = importer.split(".")
            base = ".".join([*parts[: len(parts) - node.level + is_package], *filter(None, [node.module])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        first = node.args[0] if node.args else None
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []
