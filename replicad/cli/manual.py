"""The manual pages, made from the verbs themselves (`make man`): replicad(1), and one page for each verb with what stands below it.

roff as man(7) has it; nothing in it depends on when or where it was made.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from replicad import __version__

EXIT_CODES = (
    (0, "done"),
    (1, "failed"),
    (2, "wrong usage or a value out of bounds"),
    (3, "done as far as the linked nodes go; others are offline"),
    (4, "not found"),
    (5, "unreachable"),
    (6, "not allowed"),
    (7, "a hash or signature does not match"),
    (8, "`--wait` timed out; the work goes on"),
    (9, "conflict"),
    (10, "configuration or database invalid"),
    (130, "interrupted; waiting stops, work goes on"),
)
ENVIRONMENT = (
    ("REPLICAD_CONFIG", "The configuration file, unless --config names one."),
    ("REPLICAD_TOKEN", "The token that is shown with --url."),
    ("REPLICAD__SECTION__KEY", "Overrules that key of the configuration."),
    ("NO_COLOR", "If it is set: no colours."),
)
SUMMARY_CHARS_MAX = 200
FILES = (
    ("/etc/replicad/replicad.toml", "The configuration."),
    ("~/.config/replicad/replicad.toml", "The configuration where there is no other."),
    ("/var/lib/replicad", "The data directory, unless the configuration says otherwise."),
)


def pages(program: click.Group) -> dict[str, str]:
    """Name of the file to its content."""
    context = click.Context(program, info_name="replicad")
    verbs = {name: program.get_command(context, name) for name in program.list_commands(context)}
    found = {"replicad.1": _lines(_program(program, context, verbs))}
    for name, verb in verbs.items():
        assert verb is not None  # noqa: S101 - it is listed
        found[f"replicad-{name}.1"] = _lines(_verb(verb, click.Context(verb, info_name=name, parent=context)))
    return found


def tree(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    """The contexts of all verbs from here on that do something by themselves, depth first."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None  # noqa: S101 - it is listed
            yield from tree(below, click.Context(below, info_name=name, parent=context))


def _program(program: click.Group, context: click.Context, verbs: dict[str, click.Command | None]) -> Iterator[str]:
    yield from _head("replicad", program.help or "")
    yield from (".SH SYNOPSIS", ".B replicad", _text("[OPTIONS] VERB ..."), ".SH DESCRIPTION", _text(program.help or ""))
    yield from _options(program, context, ".SH OPTIONS")
    yield ".SH VERBS"
    for name, verb in verbs.items():
        yield from _item(f"replicad-{name}(1)", verb.get_short_help_str(SUMMARY_CHARS_MAX) if verb else "")
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_CODES:
        yield from _item(str(code), meaning.replace("`", ""))
    for title, rows in (("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        yield f".SH {title}"
        for name, meaning in rows:
            yield from _item(name, meaning)


def _verb(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from _head(context.command_path.replace(" ", "-"), command.get_short_help_str(SUMMARY_CHARS_MAX))
    yield ".SH SYNOPSIS"
    found = list(tree(command, context))
    for number, one in enumerate(found):
        if number:
            yield ".br"
        yield f".B {_escaped(one.command_path)}"
        yield _text(" ".join(one.command.collect_usage_pieces(one)))
    yield from (".SH DESCRIPTION", _text(command.help or ""))
    for one in found:
        if one.command is not command:
            yield from (f".SS {_escaped(one.command_path)}", _text(one.command.help or ""))
        yield from _options(one.command, one, ".SH OPTIONS" if one.command is command else ".PP")
    yield from (".SH SEE ALSO", ".BR replicad (1)", "for the options of every verb, exit codes, environment and files.")


def _head(name: str, summary: str) -> Iterator[str]:
    yield '.\\" Made from the program: make man'
    yield f'.TH {_escaped(name.upper())} 1 "" "replicad {_escaped(__version__)}" "replicad manual"'
    yield from (".SH NAME", f"{_escaped(name)} \\- {_escaped(summary.rstrip('.'))}")


def _options(command: click.Command, context: click.Context, title: str) -> Iterator[str]:
    records = [record for parameter in command.params if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))]
    if records:
        yield title
    for flags, meaning in records:
        yield from _item(flags, meaning)


def _item(name: str, meaning: str) -> Iterator[str]:
    yield from (".TP", f".B {_escaped(name)}", _text(meaning))


def _text(text: str) -> str:
    """Paragraphs."""
    return "\n.PP\n".join(_escaped(" ".join(paragraph.split())) for paragraph in text.replace("\b", "").split("\n\n"))


def _escaped(text: str) -> str:
    """As roff shows it: backslashes and hyphens are themselves, and no line begins with a control character."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq")
    return f"\\&{plain}" if plain.startswith(".") else plain


def _lines(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"
