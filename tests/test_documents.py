"""Comments cite documents that are in the repository, and sections that these have."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
#: a document by name, and a section of it where one is named: `docs/cameras.md, "Flash"`
CITED = re.compile(
    r"(?<![\w/.-])((?:[\w-]{1,40}/){0,4}[\w-]{1,40}\.md)\b(?:`?, \"([^\"\n]{1,60})\")?"
)


def sources() -> list[Path]:
    """Python files, scripts and documents: what git would have in a commit, not what lies about."""
    if not (CHECKOUT / ".git").exists():  # unpacked from an sdist
        names = [str(path.relative_to(CHECKOUT)) for path in CHECKOUT.rglob("[!.]*")]
        names = [name for name in names if not name.startswith(".") and "egg-info" not in name]
    else:
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT, capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
    paths = [CHECKOUT / name for name in names if name]
    ours = {".py", ".md", ".toml", ".sh", ".yaml", ".c", ""}
    return [p for p in paths if p.suffix in ours and p.is_file() and "fuzz/r" not in str(p)]


def headings(document: Path) -> set[str]:
    return set(re.findall(r"^#+ (.+)$|^\*\*(.+?)\*\*|^- \*\*(.+?)\*\*", document.read_text(), re.M))


def test_every_cited_document_and_section_exists() -> None:
    wrong = []
    for path in sources():
        for name, section in CITED.findall(path.read_text()):
            document = next((d for d in (CHECKOUT / name, path.parent / name) if d.is_file()), None)
            if document is None:
                wrong.append(f"{path.relative_to(CHECKOUT)} cites {name}, which is not here")
            elif section and not any(section in found for found in headings(document)):
                wrong.append(f"{path.relative_to(CHECKOUT)}: {name} has no section {section!r}")
    assert wrong == []
