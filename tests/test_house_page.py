"""The rules of the house for the page's own JavaScript and CSS: nothing is long, and nothing is parsed as markup.

No parser of JavaScript is needed for that: strings, comments and patterns are blanked, and what is left is counted by its
brackets. That is as exact as the page's own plain style lets it be, which the first test shows.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "unclip/server/page"
FILES = sorted(path for kind in ("*.js", "*.css") for path in PAGE.rglob(kind))
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
MOST_LINES, LONGEST = 400, 60

# A pattern stands where a value may begin. A template in a template falls into pieces, each with its brackets in pairs.
_OPAQUE = re.compile(
    r"//[^\n]*|/\*.*?\*/"
    r"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`"
    r"|(?P<before>[(,=:!&|?;{}\[]\s*)/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+/",
    re.DOTALL,
)
_CLOSES = {"}": "{", ")": "(", "]": "["}
_STATEMENTS = {"if", "for", "while", "switch", "catch"}


def name(path: Path) -> str:
    return str(path.relative_to(PAGE))


def blanked(code: str) -> str:
    """Code of the same length and lines, less what is inside strings, comments and patterns."""

    def blank(found: re.Match[str]) -> str:
        kept = found["before"] or ""
        return kept + re.sub(r"[^\n]", " ", found[0][len(kept) :])

    return _OPAQUE.sub(blank, code)


def functions(code: str) -> Iterator[tuple[str, int]]:
    """The head and the lines of each function with a body in braces, from its parameters to its end."""
    code = blanked(code)
    opened: list[tuple[str, int]] = []
    partner: dict[int, int] = {}
    for at, letter in enumerate(code):
        if letter in "{([":
            opened.append((letter, at))
        elif letter in _CLOSES:
            bracket, start = opened.pop()
            assert bracket == _CLOSES[letter], f"{letter} closes {bracket}, line {code.count(chr(10), 0, at) + 1}"
            partner[at] = start
    assert not opened, "a bracket is never closed"
    for end, start in partner.items():
        head = code[:start].rstrip()
        arrow = head.endswith("=>")
        before = head.removesuffix("=>").rstrip()
        if code[start] != "{" or not (arrow or before.endswith(")")):
            continue
        first = partner[len(before) - 1] if before.endswith(")") else len(before)
        word = re.search(r"[\w$#]*$", code[:first].rstrip())
        if arrow or (word and word[0] not in _STATEMENTS):
            yield word[0] if word and word[0] else "=>", code.count("\n", first, end) + 1


def test_the_counting_counts():
    sample = """
      function plain(a, { b }) {
        if (a) { return "}"; } // }
        const found = /[{"'/]+/.exec(a);
        return `${b ? `(${a})` : "{"}`;
      }
      class Some { #way = 1; get way() { return this.#way; }
        set(to) {
          for (const each of to) { each.do(() => {
            plain(each); }); }
        }
      }
      const arrow = async (x) => {
        switch (x) { case 1: return { y: 2 }; }
      };
    """
    assert sorted(functions(sample)) == sorted([("plain", 5), ("way", 1), ("set", 4), ("=>", 2), ("async", 3)])


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_functions_are_short_and_modules_say_what_they_are(path):
    code = path.read_text(encoding="utf-8")
    assert code.startswith("/**"), "a module begins with its idea"
    assert [(head, lines) for head, lines in functions(code) if lines > LONGEST] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_no_text_becomes_markup_or_script(path):
    code = blanked(path.read_text(encoding="utf-8"))
    assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|eval|document\.write|Function\()", code)
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8"))
