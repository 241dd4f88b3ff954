"""What documents name exists: paths, links, modules, commands, options, variables, routes."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer
from tree import LAYERS, MODULES, ROOT, dotted, imports_of_each, named

from streamer.cli.main import app as command_line
from streamer.serve.config import ServeSettings

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FOLDERS = (*LAYERS, "tests", "docs", "LICENSES", ".ci", ".github")
FILES = {named(p) for folder in FOLDERS for p in (ROOT / folder).rglob("*") if "__pycache__" not in p.parts}
SOURCES = [*MODULES, *(ROOT / "streamer/web").glob("*.*s"), *(ROOT / "scripts").glob("*[!.py]")]

PATH = re.compile(rf"(?<![\w./<-])(?:\./)?((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*)")
BARE_FILE = re.compile(r"`([\w/.-]+\.(?:py|mjs|js|css|sh|html|yml))`")
MODULE = re.compile(r"python3? -m ([\w.]+)")
DOTTED = re.compile(rf"\b((?:{'|'.join(LAYERS)})(?:\.\w+)+)")
IMPORTED = re.compile(r"^from ([\w.]+) import (\w+)", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]+)")
IMPORTS = imports_of_each()
OTHERS_MODULES = {"ensurepip", "pytest", "venv"}
# Chromium's, pip's, Homebrew's, OBS's
OTHERS_OPTIONS = {"--allow-loopback-in-peer-connection", "--no-deps", "--cask", "--enable-media-stream"} | {
    "--gpus", "--model-repository",
}  # fmt: skip


def read(path: Path) -> str:
    """A document without the tree, whose names are tested as the house plan's."""
    return re.sub(r"<!-- tree.*?end of tree -->", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def code_of(text: str) -> list[str]:
    """Everything that is set as code: the lines of blocks, and what stands in a sentence."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    (\S.*)$", rest, re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return lines + indented + re.findall(r"`([^`]+)`", rest)


def missing_paths(text: str) -> list[str]:
    paths = [found.rstrip("./") for found in PATH.findall(text)]
    return [p for p in paths if not (list(ROOT.glob(p)) if "*" in p else (ROOT / p).exists())]


def missing_modules(text: str) -> list[str]:
    there = {dotted(path) for path in MODULES}
    return [name for name in MODULE.findall(text) if name not in there | OTHERS_MODULES]


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something that its source names."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        file = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
        if file.is_file() or (length == 1 and base.is_dir()):
            words = set(re.findall(r"\w+", file.read_text(encoding="utf-8"))) if file.is_file() else set()
            return set(parts[length:]) <= words
    return False


@cache
def visavis_options() -> dict[str, set[str]]:
    """The options of each command; under "" those before a command."""
    group = typer.main.get_command(command_line)
    options = {"": {o for p in group.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        options[name] = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {
            "--help",
            "--debug",
        }
    return options


def arguments_added(path: Path) -> list[ast.Call]:
    """Every `parser.add_argument(…)` of a module."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
    ]


@cache
def script_options(module: str) -> set[str]:
    """What a script and the scripts that it imports add to a parser."""
    todo, seen = [module], set[str]()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [other for other in IMPORTS.get(name, ()) if other.startswith("scripts.")]
    calls = [call for path in MODULES if dotted(path) in seen for call in arguments_added(path)]
    return {str(a.value) for call in calls for a in call.args if isinstance(a, ast.Constant)} | {"--help"}


@cache
def every_option() -> set[str]:
    own = set(OPTION.findall((ROOT / "scripts/test").read_text(encoding="utf-8")))
    scripts = {o for p in MODULES if named(p).startswith("scripts/") for o in script_options(dotted(p))}
    return set().union(*visavis_options().values()) | scripts | own | OTHERS_OPTIONS


def wrong_command(code: str) -> list[str]:
    """What is wrong with a line of code, if it starts one of our programs."""
    if found := re.search(r"(?:^|[\s/])visavis ([a-z]+(?: \| [a-z]+)*)(?![\w.])(.*)", code):
        commands, rest = found[1].split(" | "), found[2]
        unknown = [c for c in commands if c not in visavis_options()]
        known = set[str]().union(*(visavis_options().get(c, set()) for c in commands))
        return unknown or [
            o for o in re.findall(r"(?<!\S)(--[a-z][\w-]*|-[a-z])(?![\w-])", rest) if o not in known
        ]
    if found := re.search(r"python3? (?:-m (scripts[\w.]+)|(scripts/\w+)\.py)(.*)", code):
        known = script_options(found[1] or found[2].replace("/", "."))
        return [o for o in re.findall(r"(?<!\S)(--[a-z][\w-]*|-[a-z])(?![\w-])", found[3]) if o not in known]
    return [o for o in OPTION.findall(code) if o not in every_option()]


def test_documents_are_read() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "architecture.md"} <= {
        d.name for d in DOCUMENTS
    }
    assert code_of("a `b c` d\n```sh\ne f\n```\n") == ["e f", "b c"]
    assert missing_paths("see `engines/errors.py`, docs/*.md and ./scripts/gone, tests/none*.py") == [
        "scripts/gone",
        "tests/none*.py",
    ]
    assert missing_modules("python -m scripts.gone; python -m engines.model_files") == ["scripts.gone"]
    assert exists("engines.errors.VisavisError")
    assert not exists("engines.errors.GoneError")
    assert not exists("engines.gone")
    assert wrong_command("visavis run a --from mic --gone") == ["--gone"]
    assert wrong_command(".venv/bin/visavis gone") == ["gone"]
    assert wrong_command("python -m scripts.evaluate DATA -o OUT --gone 3") == ["--gone"]
    assert wrong_command("--gone") == ["--gone"]
    assert wrong_command("visavis edit me.avatar --yaw 15") == wrong_command("--framing photo") == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_paths_exist(path: Path) -> None:
    text = read(path)
    short = [n for n in BARE_FILE.findall(text) if not any(f == n or f.endswith(f"/{n}") for f in FILES)]
    assert missing_paths(text) + short == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    broken: list[str] = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", read(path)):
        if re.match(r"\w+:", target):
            continue
        file = path.parent / target if target else path
        heads = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        slugs = [re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads]
        if not file.exists() or (anchor and anchor not in slugs):
            broken.append(f"{target}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_modules_and_what_they_hold_exist(path: Path) -> None:
    text = read(path)
    imported = [f"{module}.{name}" for module, name in IMPORTED.findall(text)]
    assert missing_modules(text) + [n for n in DOTTED.findall(text) + imported if not exists(n)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_commands_and_options_exist(path: Path) -> None:
    wrong = {code: found for code in code_of(read(path)) if (found := wrong_command(code))}
    assert wrong == {}


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_variables_extras_and_markers_exist(path: Path) -> None:
    text = read(path)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    sources = "\n".join(p.read_text(encoding="utf-8") for p in SOURCES if p.is_file() and p.suffix != ".pyc")
    variables = set(re.findall(r"\bVISAVIS_[A-Z_]+\b", sources))
    variables |= {f"VISAVIS_{field.upper()}" for field in ServeSettings.model_fields}
    assert [v for v in re.findall(r"\bVISAVIS_[A-Z_]+\b", text) if v not in variables] == []
    extras = [e for group in re.findall(r"(?:\.|visavis)\[(\w[\w,-]*)\]", text) for e in group.split(",")]
    assert [e for e in extras if e not in project["project"]["optional-dependencies"]] == []
    known = {m.partition(":")[0] for m in project["tool"]["pytest"]["ini_options"]["markers"]}
    asked = re.findall(r"(?:scripts/test|pytest)[^`\n]*? -m (\w+)", text)
    assert [marker for marker in asked if marker not in known] == []


def test_help_of_every_option_can_be_printed() -> None:
    """`argparse` takes a lone % for a place to fill in and dies of it, on `--help` only."""
    texts = [
        ast.unparse(word.value)
        for path in MODULES
        for call in arguments_added(path)
        for word in call.keywords
        if word.arg == "help"
    ]
    assert len(texts) > 20
    assert [t for t in texts if re.search(r"%(?!%|\(\w+\)s)", t.replace("%%", ""))] == []


def test_every_route_is_documented() -> None:
    text = read(ROOT / "docs/webrtc.md")
    named_routes = {
        (verb, re.sub("[A-Z]{2,}", lambda found: f"{{{found[0].lower()}}}", path))
        for verb, path in re.findall(r"(GET|POST|PUT|PATCH|DELETE) (/[\w/.-]*)`", text)
    }
    routes = {
        (verb.upper(), path)
        for source in (ROOT / "streamer/serve").glob("*.py")
        for verb, path in re.findall(
            r'@\w+\.(get|post|put|patch|delete)\(\s*"([^"]+)"', source.read_text(encoding="utf-8")
        )
    }
    assert routes
    assert routes == named_routes


def test_every_field_of_an_offer_is_documented() -> None:
    tree = ast.parse((ROOT / "streamer/serve/offer.py").read_text(encoding="utf-8"))
    offer = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name in ("Asked", "Offer")]
    fields = {
        n.target.id
        for part in offer
        for n in part.body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    _, _, table = read(ROOT / "docs/webrtc.md").partition("Fields of an offer")
    table = table.strip().partition("\n\n")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == fields


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_paths_named_in_code_exist(path: Path) -> None:
    """In docstrings, comments and messages."""
    text = path.read_text(encoding="utf-8")
    files = [p for p in missing_paths(text) if re.search(r"\.(py|md|js|sh|css)$", p)]
    assert files + missing_modules(text) == []
