"""``audit``: whether the journal is what was written."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cluster.commands.deck import DataDir, Json, settings_for
from cluster.commands.output import out, show, told
from cluster.deck import running_deck
from storage.audit import verify
from trading.errors import BadInput, NeedsOperator

audit = typer.Typer(help="The audit: verify that nothing was changed.", no_args_is_help=True)
DatabaseUrl = Annotated[
    str, typer.Option("--database-url", help="Default: the deck on this machine.", envvar="DATABASE_URL")
]


class Kept(msgspec.Struct):
    """Heads as they were at some time, kept where nobody who could tamper gets at them."""

    at: str
    #: chain -> (number, digest)
    heads: dict[str, tuple[int, str]]


@audit.command("verify")
def verify_audit(
    against: Annotated[Path | None, typer.Option(help="Heads that --save wrote earlier.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the heads here; keep the file elsewhere.")] = None,
    database_url: DatabaseUrl = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compute every chain again.  Exit code 1 when something is not what was written."""
    with told():
        known = None
        if against is not None:
            try:
                known = msgspec.json.decode(against.read_bytes(), type=Kept).heads
            except (OSError, msgspec.DecodeError) as error:
                raise BadInput("--against", f"{against} holds no heads: {error}") from error
        if not database_url:
            found = running_deck(settings_for(data_dir).home)
            if found is None:
                raise NeedsOperator("no deck is running on this machine", "start one, or give --database-url")
            database_url = found.database_url
        began = time.monotonic()
        verdict = verify(database_url, known)
        seconds = time.monotonic() - began
        heads = [msgspec.to_builtins(head) for head in verdict.heads]
        if save is not None and not verdict.findings:
            kept = Kept(time.strftime("%Y-%m-%dT%H:%M:%S%z"), {h.chain: (h.number, h.digest) for h in verdict.heads})
            save.write_bytes(msgspec.json.format(msgspec.json.encode(kept)))
        said = {"ok": not verdict.findings, "rows": verdict.rows, "heads": heads, "findings": []}
        said["findings"] = [finding.text for finding in verdict.findings]
        if as_json:
            out.print_json(json.dumps(said))
        else:
            columns = [("chain", "chain"), ("links", "number"), ("rows", "rows"), ("head", "digest")]
            show(said, False, columns, heads)
            for finding in verdict.findings:
                out.print(finding.text, style="red", markup=False)
            result = f"{len(verdict.findings)} findings" if verdict.findings else "all is as it was written"
            out.print(f"{verdict.rows} rows in {seconds:.1f} s: {result}")
    if verdict.findings:
        raise typer.Exit(1)
