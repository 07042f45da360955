"""The TypeScript client as others get it: its types, its files, and what its documentation shows."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.node_package import BUILT, PACKAGE, run
from serving.processes import ROOT, ServerProcess
from serving.tokens import token

DOCUMENTS = {"guide": ROOT / "docs" / "javascript.md", "package": PACKAGE / "README.md", "project": ROOT / "README.md"}
CODE = re.compile(r"^```ts\n(.*?)^```$", re.MULTILINE | re.DOTALL)

KNOWN_TO_ALL = """
import type * as sdk from "realtime-communication-client";
declare global {
  const client: sdk.Client;
  const room: sdk.Subscription<{ text: string }>;
  const token: string;
}
"""
"""What a block may use without saying where it is from: it was made further up in the text."""

OPTIONS = {
    "extends": "../../tsconfig.base.json",
    "compilerOptions": {
        "types": ["node"],
        "rootDir": ".",
        "outDir": "made",
        "noUnusedLocals": False,
        "noPropertyAccessFromIndexSignature": False,
        "exactOptionalPropertyTypes": False,
    },
    "include": ["."],
}


def blocks() -> Iterator[tuple[str, str]]:
    """The TypeScript in the documents, each block with a name."""
    for name, document in DOCUMENTS.items():
        for number, block in enumerate(CODE.findall(document.read_text())):
            yield f"{name}_{number}", block


def test_the_documentation(package: Path, server: ServerProcess) -> None:
    """Every block is of the right types; the first is run."""
    folder = BUILT / "docs"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.ts"):
        old.unlink()
    (folder / "tsconfig.json").write_text(json.dumps(OPTIONS))
    (folder / "globals.d.ts").write_text(KNOWN_TO_ALL)
    for name, block in blocks():
        address = block.replace("ws://localhost:8081/ws", server.url)
        (folder / f"{name}.ts").write_text(f"{address}\nexport {{}};\n")
    run("tsc", "-p", str(folder))
    first = (folder / "made" / "guide_0.js").read_text()
    (folder / "made" / "first.mjs").write_text(f"{first}\nawait client.ping(); await client.close();\n")
    wrote = run("node", str(folder / "made" / "first.mjs"), environment={"TOKEN": token("alice")})
    assert wrote == "alice hello from Node\n"


def test_the_examples(package: Path) -> None:
    run("tsc", "-p", "examples/tsconfig.json")


def test_the_types_hide_nothing(package: Path) -> None:
    declarations = sorted((package / "dist").glob("*.d.ts"))
    assert declarations
    for path in declarations:
        code = re.sub(r"/\*.*?\*/|//.*", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"\bany\b", code), path


def test_the_package_has_what_its_map_names(package: Path) -> None:
    packed = json.loads(run("npm", "pack", "--dry-run", "--ignore-scripts", "--json"))
    files = {f"./{file['path']}" for file in packed[0]["files"]}
    manifest = json.loads((package / "package.json").read_text())
    entries = [[entry] if isinstance(entry, str) else entry.values() for entry in manifest["exports"].values()]
    wanted = {path for paths in entries for path in paths}
    assert wanted <= files
    assert not [name for name in files if name.startswith(("./test", "./.build", "./node_modules"))]


@pytest.mark.parametrize("name", ["package.json", "package-lock.json"])
def test_no_place_to_download_from_is_named(name: str) -> None:
    assert not re.search(r'"resolved"|registry', (PACKAGE / name).read_text())
