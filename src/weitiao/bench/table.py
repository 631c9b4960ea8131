"""What the bench found, as tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from weitiao.bench.curves import ALLOWED

Row = Mapping[str, Any]
OF_STEPS = ("samples/s", "tokens/s", "TFLOP/s", "GiB", "warm-up", "1k, 10k", "equal")
OF_PREDICTIONS = ("rows/s", "× HF", "answer\ntokens/s", "GiB", "first\nanswer", "warm-up", "equal")


def train_tables(found: Mapping[str, Any]) -> Group:
    """One table for each profile and number of samples a step, with what is not in it below."""
    machine, rows = found["machine"], found["rows"]
    about = f"{machine['shape']} · {machine['dtype']} · {machine.get('gpu') or machine['processor']}"
    about += f", {machine['threads']} threads · matrix products at {machine['gemm_tflops']:.2f} TFLOP/s"
    about += f" (of which shares are), kept up {machine['gemm_kept_up_tflops']:.2f}"
    groups = dict.fromkeys((row["profile"], row["samples_per_step"]) for row in rows)
    parts: list[Any] = [Text(about)]
    for profile, count in groups:
        members = [row for row in rows if (row["profile"], row["samples_per_step"]) == (profile, count)]
        seen = [row for row in members if row["note"] is None]
        parts += [_table(f"{profile} · {count} samples a step", OF_STEPS, seen, _of_steps), _lines(members)]
    return Group(*parts, *map(_curve, found.get("curves", ())))


def predict_tables(found: Mapping[str, Any]) -> Group:
    """One table for each profile, with what is not in it below."""
    machine, rows = found["machine"], found["rows"]
    about = f"{machine['shape']} · {machine['dtype']} · {machine.get('gpu') or machine['processor']}"
    about += f", {machine['cores']} cores, {machine['threads']} threads · {machine['rows']} rows"
    parts: list[Any] = [Text(about)]
    for profile in dict.fromkeys(row["profile"] for row in rows):
        members = [row for row in rows if row["profile"] == profile]
        checks = [agreement_line(one) for one in found["agreement"] if one["profile"] == profile]
        seen = [row for row in members if row["note"] is None]
        notes = [f"{row['system']}: {row['note'] or row['setting']}" for row in members]
        parts += [_table(profile, OF_PREDICTIONS, seen, _of_predictions), Text("\n".join([*notes, *checks, ""]))]
    return Group(*parts)


def _of_predictions(row: Row) -> list[str]:
    return [
        f"{_short(row['samples_per_second'])}\n{_range(row['low'], row['high'])}",
        "—" if row["ratio"] is None else _short(row["ratio"]),
        _short(row["answer_tokens_per_second"]),
        "—" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}",
        f"{row['first_answer_seconds']:.1f} s",
        f"{row['warm_up_seconds']:.1f} s",
        "—" if row["equal"] is None else "yes" if row["equal"] else "NO",
    ]


def agreement_line(one: Row) -> str:
    """One of ours against the plain path, in a line."""
    where = f"{one['profile']}, {one['system']} against the plain path, {one['dtype']}, {one['layers'] or 'all'} layers"
    if one["same"] is None:
        return f"{where}: {one['note']}"
    verdict = "equal" if one["equal"] else "NOT EQUAL"
    off = one.get("off")
    others = "" if off is None else f"; from float32 differ {off:.2%}, of the plain path's {one['plain_off']:.2%}"
    return (
        f"{where}, {one['rows']} rows: {verdict}; {one['same']:.2%} of answers the same, log-probabilities within "
        f"{one['gap']:.0e}; {one['flipped']:.2%} are others in batches of 1 and of {one['together']}{others}"
    )


def _curve(told: Row) -> Text:
    verdict = "within" if told["within"] else "NOT within"
    return Text(
        f"{told['profile']}: loss of {told['system']} over {told['steps']} steps is {told['gap']:.4f} off separate "
        f"code's in float32, {verdict} {ALLOWED} times what another order changes ({told['other_order']:.4f})"
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Row], cells: Callable[[Row], list[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("system", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["system"], *cells(row))
    return table


def _of_steps(row: Row) -> list[str]:
    return [
        f"{_short(row['samples_per_second'])}\n{_range(row['low'], row['high'])}",
        f"{row['tokens_per_second']:,.0f}",
        f"{_short(row['useful_tflops'])}\n{row['gemm_share']:.0%}",
        "—" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}",
        f"{_short(row['warm_up_seconds'])} s",
        f"{_short(row['seconds_1k'])} s\n{_short(row['seconds_10k'])} s",
        _equal(row),
    ]


def _equal(row: Row) -> str:
    if row["equal"] is None:
        return "—"
    return f"{'yes' if row['equal'] else 'NO'}\n{row['equal_error']:.0e}"


def _lines(rows: Sequence[Row]) -> Text:
    """What is not in the table: first losses of the systems that compute the same, and the systems that are absent."""
    losses = [
        f"  {row['system']}: {' '.join(f'{loss:.4f}' for loss in row['first_losses'])}"
        for row in rows
        if row["equal"] is not None
    ]
    absent = [f"{row['system']}: {row['note']}" for row in rows if row["note"] is not None]
    return Text("\n".join([*(["loss of the first steps", *losses] if losses else []), *absent, ""]))


def _range(low: float, high: float) -> str:
    """In two lines where one would push other columns off a terminal."""
    whole = f"{_short(low)}–{_short(high)}"
    return whole if len(whole) <= 9 else whole.replace("–", "–\n")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


TABLES = {"train": train_tables, "predict": predict_tables}
"""By command."""
