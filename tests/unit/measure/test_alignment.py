"""Differences of two texts, word by word, as a person sees them."""

from __future__ import annotations

import io

from rich.console import Console

from whisperbench.cli.transcripts import to_terminal
from whisperbench.measure.alignment import AlignedSpan, align
from whisperbench.results.pages import environment
from whisperbench.text import escape_control

HOSTILE = "<script>alert('x')</script> & \x1b[2J\x1b]0;title\x07 \0 \u202etxt.exe \ud800"


def pieces(reference: str, hypothesis: str) -> list[AlignedSpan]:
    return align(reference.split(), hypothesis.split())


def to_html(found: list[AlignedSpan]) -> str:
    """As the pages show an alignment."""
    return str(environment().get_template("parts.html.jinja").module.aligned(found))  # type: ignore[attr-defined]


def on_terminal(found: list[AlignedSpan], colour: bool = True) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=colour, color_system="standard" if colour else None, width=1_000)
    console.print(to_terminal(found))
    return file.getvalue()


def test_each_kind_of_difference() -> None:
    """A word is equal, substituted, deleted or inserted; neighbours of one kind are one piece."""
    assert pieces("the quick brown fox jumped over it", "the thick brown fox over it today now") == [
        AlignedSpan("equal", "the", "the"),
        AlignedSpan("substitute", "quick", "thick"),
        AlignedSpan("equal", "brown fox", "brown fox"),
        AlignedSpan("delete", "jumped", ""),
        AlignedSpan("equal", "over it", "over it"),
        AlignedSpan("insert", "", "today now"),
    ]


def test_empty_texts() -> None:
    """Nothing against words is one deletion or insertion, nothing against nothing no piece."""
    assert pieces("a b", "") == [AlignedSpan("delete", "a b", "")]
    assert pieces("", "a b") == [AlignedSpan("insert", "", "a b")]
    assert pieces("", "") == []
    assert to_html([]) == ""
    assert to_terminal([]).plain == ""


def test_terminal() -> None:
    """Deleted words are red and struck through, inserted ones green; without colours, arrows show the edits."""
    found = pieces("[red]the quick fox jumped over it", "[red]the thick fox over it now")
    assert on_terminal(found, colour=False) == "[red]the (quick→thick) fox (jumped→) over it (→now)\n"
    assert on_terminal(pieces("quick", "thick")) == "(\x1b[9;31mquick\x1b[0m→\x1b[32mthick\x1b[0m)\n"


def test_html_marks_and_escapes() -> None:
    """Each kind has its element and class, and a text cannot become an element."""
    assert to_html(pieces("a <b> c d", "a b&b c e e")) == (
        'a <mark class="substitute"><del>&lt;b&gt;</del> <ins>b&amp;b</ins></mark> c '
        '<ins class="insert">e</ins> <mark class="substitute"><del>d</del> <ins>e</ins></mark>'
    )
    assert to_html(pieces("a", "")) == '<del class="delete">a</del>'


def test_hostile_text_is_harmless() -> None:
    """No escape, control character, reordering mark or half character reaches a terminal or a page."""
    found = [
        *align(HOSTILE.split(" "), HOSTILE.split(" ")),
        AlignedSpan("delete", HOSTILE, ""),
        AlignedSpan("insert", "", HOSTILE),
    ]
    for shown in (to_terminal(found).plain, to_html(found), escape_control(HOSTILE)):
        assert all(character.isprintable() for character in shown)
        assert r"\x1b[2J\x1b]0;title\x07 \x00 \u202etxt.exe \ud800" in shown
    assert "<script" not in to_html(found)


def test_visible_keeps_every_script() -> None:
    """Letters, accents, joined Persian and emoji stay as they are; a line break is spelled out."""
    for text in ("Ærøskøbing naïve", "日本語", "می‌خواهم", "👩‍🔬", "नमस्ते"):
        assert escape_control(text) == text
    assert escape_control("two\nlines\t") == r"two\nlines\t"


def test_what_a_template_shows_is_safe_in_attributes() -> None:
    """Both quotes are escaped, and a line break is spelled out."""
    shown = environment().from_string('<i title="{{ text }}">').render(text="\"'<&>\n")
    assert shown == '<i title="&#34;&#39;&lt;&amp;&gt;\\n">'
