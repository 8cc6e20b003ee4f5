"""One invocation of the program: the global options, and from them the configuration file, the daemon's client and the way to speak.

The global options may stand before or after the verb: every ``Verb`` and ``Verbs`` carries them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from msgspec import Struct

from replicad.cli import remote
from replicad.cli.client import Client
from replicad.cli.output import Output
from replicad.cli.remote import Remote
from replicad.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from replicad.config import Config

SYSTEM_CONFIG = Path("/etc/replicad/replicad.toml")
CONFIG_VARIABLE = "REPLICAD_CONFIG"
TOKEN_VARIABLE = "REPLICAD_TOKEN"  # noqa: S105 - the name of a variable


def user_config() -> Path:
    """The configuration file of a person who is not root."""
    return Path.home() / ".config" / "replicad" / "replicad.toml"


@dataclass(slots=True)
class Invocation:
    """The global options as given. ``config_file`` and ``url`` are None when they were not."""

    config_file: Path | None = None
    url: str | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_color: bool = field(default_factory=lambda: bool(os.environ.get("NO_COLOR")))

    @property
    def out(self) -> Output:
        """How this invocation speaks."""
        return Output(as_json=self.as_json, quiet=self.quiet, verbose=self.verbose, color=not self.no_color and not self.as_json and sys.stdout.isatty())

    @property
    def named_config(self) -> Path | None:
        """The configuration file that the command line or the environment names."""
        if self.config_file is not None:
            return self.config_file
        named = os.environ.get(CONFIG_VARIABLE)
        return Path(named) if named else None

    @property
    def new_config(self) -> Path:
        """Where a configuration file is made if there is none."""
        return self.named_config or (SYSTEM_CONFIG if os.geteuid() == 0 else user_config())

    def find_config(self) -> Path:
        """The configuration file to read; ConfigurationError if there is none."""
        named = self.named_config
        places = [named] if named is not None else [SYSTEM_CONFIG, user_config()]
        for place in places:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                _look(place)
                return place
        tried = " or ".join(str(place) for place in places)
        raise ConfigurationError(
            f"no configuration at {tried}", hint="make one: replicad init --name NAME   (or name it: --config FILE)", code="no-configuration"
        )

    def config(self) -> Config:
        """The whole configuration; ConfigurationError with all its errors."""
        return import_module("replicad.config").load(self.find_config(), os.environ)  # type: ignore[no-any-return]

    def client(self) -> Client:
        """The daemon to talk to: that of ``--url`` with the token of the environment or the login there; else, unless a configuration is named, that of the login; else the socket that the configuration
        names.
        """
        if self.url is None:
            login = self.login()
            return Client(socket_path=str(self.config().admin_socket)) if login is None else login.client()
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        check_url(self.url, "--url")
        if not (token.isascii() and token.isprintable()):
            raise InputError(f"${TOKEN_VARIABLE} is not a token: it holds more than printable ASCII")
        login = None if token else remote.load()
        return login.client() if login is not None and login.url == self.url.rstrip("/") else Client(url=self.url, token=token)

    def login(self) -> Remote | None:
        """The login that verbs use; None if they ask the node of a configuration, or the one of ``--url``."""
        return None if self.named_config is not None or self.url is not None else remote.load()

    @property
    def is_remote(self) -> bool:
        """Whether verbs ask a node that may not be this machine's."""
        return self.url is not None or self.login() is not None


def check_url(url: str, what: str) -> None:
    """InputError unless it leads to an admin listener."""
    if not _is_url(url):
        raise InputError(f"{what} {url!r}: write http://HOST:PORT or https://HOST:PORT")


def _look(place: Path) -> None:
    """Raises FileNotFoundError or NotADirectoryError if nothing is there; what cannot be looked at is there, and reading it will say why it cannot be."""
    with contextlib.suppress(PermissionError):
        place.stat()


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


Prints = type[Struct] | tuple[type[Struct], ...]


YES = click.option("-y", "--yes", is_flag=True, help="Do not ask. Nobody is asked, either, where there is no terminal (cron, ssh without one) or with --json.")
"""Of every verb that asks before it destroys something."""


def _all_of(prints: Prints) -> tuple[type[Struct], ...]:
    return prints if isinstance(prints, tuple) else (prints,)


pass_invocation = click.make_pass_decorator(Invocation)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep a global option, wherever on the command line it stood."""
    invocation = context.find_object(Invocation)
    if invocation is not None and value not in (None, False):
        setattr(invocation, str(parameter.name), value)


def global_options(*, hidden: bool) -> list[click.Parameter]:
    """Fresh copies of the global options."""
    common: dict[str, Any] = {"expose_value": False, "callback": _remember, "hidden": hidden}
    return [
        click.Option(
            ["--config", "config_file"],
            type=click.Path(path_type=Path, readable=False),
            metavar="FILE",
            help=f"The configuration file [${CONFIG_VARIABLE}].",
            **common,
        ),
        click.Option(["--url"], metavar="URL", help=f"Talk to the admin listener of a remote node; the token is read from ${TOKEN_VARIABLE}.", **common),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON; errors too.", **common),
        click.Option(["-q", "--quiet"], is_flag=True, help="Print only data and errors.", **common),
        click.Option(["-v", "--verbose"], is_flag=True, help="Print more.", **common),
        click.Option(["--no-color"], is_flag=True, help="No colours.", **common),
    ]


class Named(click.types.StringParamType):
    """Text of which a shell may offer what there is: members, shares, stages, paths, by the parameter's metavar."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """See ``click.ParamType``."""
        completion = import_module("replicad.cli.completion")
        return [import_module("click.shell_completion").CompletionItem(name) for name in completion.offer(ctx, param.metavar, incomplete)]


class Verb(click.Command):
    """A command that also takes the global options. ``prints``: what it prints with --json, one of these; none: a program cannot read it."""

    def __init__(self, *args: Any, prints: Prints = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prints = _all_of(prints)
        for parameter in self.params:
            if parameter.type is click.STRING and parameter.metavar:
                parameter.type = Named()
        self.params.extend(global_options(hidden=True))

    def invoke(self, ctx: click.Context) -> Any:
        """See ``click.Command``. What the daemon says about a field is said about the option."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise import_module("replicad.cli.wording").of_options(error, self.params) from None


class Verbs(click.Group):
    """A group of verbs. ``prints``: what it prints itself, where it is a verb without any of them."""

    command_class = Verb

    def __init__(self, *args: Any, prints: Prints = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prints = _all_of(prints)
        self.params.extend(global_options(hidden=True))


class LazyVerbs(Verbs):
    """The whole program: a verb's module is imported when the verb is used. ``places`` maps a verb to ``module:attribute``."""

    def __init__(self, *args: Any, places: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = places
        for parameter in self.params:
            if isinstance(parameter, click.Option):
                parameter.hidden = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order of a newcomer's day."""
        del ctx
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb."""
        del ctx
        if cmd_name not in self._places:
            return None
        module, attribute = self._places[cmd_name].split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101
        return command
