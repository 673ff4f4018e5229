"""``batchmax show``: print the computation for one row, from a file or from the command line; or the worst rows.

Rows go through the same function as in ``score``, so the probabilities are those that it would write.
"""

from __future__ import annotations

from typing import Any

import click

from batchmax.cli import options as shared
from batchmax.cli.command import INPUT, MODEL, RESULTS, ROWS, is_typed, make_command, option
from batchmax.cli.completion import PATH
from batchmax.cli.results import show_progress, show_result
from batchmax.errors import UsageError
from batchmax.options.parsing import refuse
from batchmax.options.score_options import IfExists, ScoreOptions

EXAMPLE = """\
batchmax show logits.parquet --row 18223
batchmax show logits.parquet --worst 20 -o worst.parquet
batchmax show --values 2,-inf,0.5 --label 2 --beta 1,500
"""

COMMON = (
    *("--values", "--logits", "--label", "--beta", "--all", "--alternatives"),
    *("--row", "--token", "--worst", "--out"),
)

WITH_WORST = ("out", "if_exists", "columns", "exclude", "limit", "on_bad_row")
"""Options that apply only to ``--worst``."""


@make_command(example=EXAMPLE, common=COMMON, topic="inspect")
@click.argument("inputs", metavar="[INPUT...]", nargs=-1, type=PATH)
@option(
    "--values",
    INPUT,
    "Logits to show instead of a row of INPUT.",
    metavar="X,X,...",
    more="Then --label is a class.",
)
@shared.find_logits
@shared.find_labels
@option("--row", ROWS, "Row to show, counted from 0 over all inputs.", type=int)
@option("--token", ROWS, "Token of the sequence to show, counted from 0.", type=int)
@shared.worst(
    "Show the N rows with the largest losses.",
    group=ROWS,
    more="The options --out, --if-exists, --columns, --exclude, --limit and --on-bad-row need --worst.",
)
@shared.limit
@shared.activation
@shared.temperature
@shared.kind
@option("--beta", MODEL, "Multiply the logits by X; several X are compared.", metavar="X,X,...")
@shared.calibration
@option(
    "--all",
    RESULTS,
    "Show all classes, or all tokens of a sequence.",
    is_flag=True,
    more="By default, the 10 with the largest logits or losses are shown.",
)
@option("--alternatives", RESULTS, "Compare softmax with other activations and losses.", is_flag=True)
@shared.carried
@shared.out("Parquet file for the rows of --worst.", required=False)
@shared.replace
@shared.on_bad_row
@shared.resources
@shared.reporting
def command(
    inputs: tuple[str, ...],
    row: int | None,
    token: int | None,
    worst: int | None,
    values: str | None,
    beta: str | None,
    **given: Any,
) -> None:
    """Show how a row is computed, or the rows with the largest losses.

    With --row, shows each step from the logits to the loss; for a sequence, the tokens with the
    largest losses. With --worst, lists the rows with the largest losses and their other columns; INPUT
    is logits or scored files.
    """
    from batchmax.cli.render import row as row_table
    from batchmax.jobs import row_trace

    everything, side_by_side = given.pop("all"), given.pop("alternatives")
    betas = numbers("--beta", beta) if beta is not None else [None]
    if worst is not None:
        if row is not None or token is not None or values is not None or everything or side_by_side or len(betas) > 1:
            what = "--worst can't be combined with --row, --token, --values, --all, --alternatives or several --beta"
            raise UsageError(what, remedy="leave one of them out")
        _show_worst(list(inputs), worst, beta=betas[0], **given)
        return
    typed = [name for name in WITH_WORST if given.pop(name) is not None and is_typed(name)]
    refuse("this option applies only to --worst", "leave it out, or add --worst 20", **dict.fromkeys(typed, True))
    if side_by_side and len(betas) > 1:
        what = "activations can be compared for only one β"
        raise UsageError(what, where="--alternatives", remedy="leave it out, or give one --beta")
    if values is not None:
        if inputs or row is not None or token is not None:
            raise UsageError("--values and a file are both given", remedy="give one of them")
        shown = row_trace.trace_values(numbers("--values", values), betas, **given)
    elif not inputs:
        raise UsageError("no input is given", remedy="name a file, or try: batchmax show --values 1,2,3")
    elif row is None or row < 0:
        what = "no row is given" if row is None else f"there is no row {row}"
        raise UsageError(what, where="--row", remedy="the first is --row 0")
    elif token is None and (options := row_trace.sequence_options(list(inputs), betas, **given)) is not None:
        if side_by_side:
            what = "activations can be compared for only one token of a sequence"
            raise UsageError(what, where="--alternatives", remedy="choose a token: --token 0")
        _show_sequence(list(inputs), row, options, everything=everything)
        return
    else:
        shown = row_trace.trace_row(list(inputs), row, betas, token=token, **given)
    with show_progress() as progress:
        if shown.assumed:
            progress.assumed(shown.assumed)
        for text in shown.warnings:
            progress.warn(text)
    if side_by_side:
        record = row_trace.alternatives(shown)
        show_result(record, lambda: row_table.show_alternatives(shown, record, everything=everything))
    else:
        show_result(row_trace.as_record(shown), lambda: row_table.show(shown, everything=everything))


def _show_sequence(inputs: list[str], row: int, options: ScoreOptions, *, everything: bool) -> None:
    from batchmax.cli.render import tokens
    from batchmax.jobs.sequence_trace import trace_sequence

    with show_progress() as progress:
        result = trace_sequence(inputs, row, options, progress)
    show_result(result.as_dict(), lambda: tokens.show(result, everything=everything))


def _show_worst(inputs: list[str], n: int, *, out: str | None, if_exists: IfExists | None, **given: Any) -> None:
    from batchmax.cli.render import summaries
    from batchmax.cli.render import worst_rows as worst_table
    from batchmax.columns.plain_values import plain_rows
    from batchmax.evaluation.worst_rows import worst_rows
    from batchmax.sinks import table_file
    from batchmax.storage.input_files import find_files

    if out is None and if_exists is not None and is_typed("if_exists"):
        raise UsageError("no output is given", where="--if-exists", remedy="add -o worst.parquet, or leave it out")
    storage, output = given["storage_options"] or (), None
    if out is not None:
        files = [] if inputs == ["-"] else find_files(inputs, storage)
        output = table_file.table_output(out, if_exists or "error", files, storage)
    with show_progress() as progress:
        result = worst_rows(inputs, n, progress=progress, **given)
        if output is not None:
            table_file.save_table(result, output)

    def as_text() -> None:
        if out is None:
            worst_table.show(result)
        else:
            summaries.show_worst_file(result, out)

    show_result(plain_rows(result), as_text)


def numbers(option_name: str, text: str) -> list[float]:
    """Parse comma-separated numbers, including inf, -inf and nan."""
    values = []
    for word in text.split(","):
        try:
            values.append(float(word))
        except ValueError:
            what = f"{word.strip()!r} is not a number"
            raise UsageError(what, where=option_name, remedy="separate numbers by commas: 0.5,1,-inf") from None
    return values
