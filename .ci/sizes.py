"""The ten longest files and the ten longest functions of the package: `make sizes`."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


def main() -> None:
    """Print both lists, longest first, in lines."""
    files, functions = [], []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(SOURCE)
        files.append((text.count("\n"), str(name)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append(((node.end_lineno or 0) - node.lineno + 1, f"{name}:{node.lineno} {node.name}"))
    for title, rows in (("files (budget 400)", files), ("functions (budget 60)", functions)):
        print(f"{len(rows)} {title}")
        for lines, place in sorted(rows, reverse=True)[:10]:
            print(f"  {lines:4}  {place}")


if __name__ == "__main__":
    main()
