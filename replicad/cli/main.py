"""The program: its verbs, and what becomes of errors (exit codes as in the manual: 0 done, 1 failed, 2 usage, 3 partly done, 4 not found, 5 unreachable, 6 not allowed, 7 integrity,
8 waiting timed out, 9 conflict, 10 configuration, 130 interrupted).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from replicad import __version__
from replicad.cli.invocation import Invocation, LazyVerbs
from replicad.errors import InputError, ReplicadError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

PLACES = {
    "init": "replicad.cli.init:init",
    "serve": "replicad.cli.node:serve",
    "id": "replicad.cli.node:id_",
    "version": "replicad.cli.node:version",
    "status": "replicad.cli.status:status",
    "matrix": "replicad.cli.status:matrix",
    "transfers": "replicad.cli.status:transfers",
    "doctor": "replicad.cli.status:doctor",
    "demo": "replicad.cli.demo:demo",
    "key": "replicad.cli.key:key",
    "peer": "replicad.cli.peer:peer",
    "audit": "replicad.cli.audit:audit",
    "token": "replicad.cli.token:token",
    "user": "replicad.cli.user:user",
    "login": "replicad.cli.login:login",
    "logout": "replicad.cli.login:logout",
    "whoami": "replicad.cli.token:whoami",
    "share": "replicad.cli.share:share",
    "url": "replicad.cli.share:url",
    "jamf": "replicad.cli.jamf:jamf",
    "munki": "replicad.cli.munki:munki",
    "publish": "replicad.cli.publish:publish",
    "ls": "replicad.cli.files:ls",
    "show": "replicad.cli.files:show",
    "get": "replicad.cli.files:get",
    "promote": "replicad.cli.curation:promote",
    "history": "replicad.cli.curation:history",
    "rollback": "replicad.cli.curation:rollback",
    "rm": "replicad.cli.curation:rm",
    "undelete": "replicad.cli.curation:undelete",
    "takedown": "replicad.cli.curation:takedown",
    "wait": "replicad.cli.wait:wait",
    "check": "replicad.cli.check:check",
    "store": "replicad.cli.store:store",
    "backup": "replicad.cli.backup:backup",
    "limits": "replicad.cli.limits:limits",
    "reload": "replicad.cli.limits:reload",
    "config": "replicad.cli.configuration:config",
    "completion": "replicad.cli.completion:completion",
}

program = LazyVerbs(
    name="replicad",
    places=PLACES,
    help="Puts packages where the computers are, keeps every copy verified, and keeps working when machines, links and people fail.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    no_args_is_help=True,
)
click.version_option(__version__, prog_name="replicad", message="%(prog)s %(version)s")(program)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one invocation; returns the exit code. ``arguments`` default to those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    invocation = Invocation()
    try:
        result = program.main(given, prog_name="replicad", standalone_mode=False, obj=invocation)
    except click.UsageError as error:
        invocation.as_json = invocation.as_json or "--json" in given
        _explain(invocation, error)
        result = EXIT_USAGE
    except click.ClickException as error:
        invocation.out.error(ReplicadError(error.format_message()))
        result = ReplicadError.exit_code
    except click.Abort:
        result = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        result = ReplicadError.exit_code
    except ReplicadError as error:
        invocation.out.error(error)
        result = error.exit_code
    return result if isinstance(result, int) else 0


def manual() -> dict[str, str]:
    """What of the manual is made from the verbs: names of files below docs/, and their content."""
    from replicad.cli import shapes  # noqa: PLC0415 - at work on the program only
    from replicad.cli.manual import pages  # noqa: PLC0415

    return {**{f"man/{name}": text for name, text in pages(program).items()}, "json.md": shapes.page(program)}


def _explain(invocation: Invocation, error: click.UsageError) -> None:
    """A command line that cannot be understood."""
    if invocation.as_json:
        hint = error.ctx.get_usage() if error.ctx else ""
        invocation.out.error(InputError(error.format_message(), hint=hint, code="usage"))
    else:
        error.show()
