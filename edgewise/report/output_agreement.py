"""How far each output of each variant agrees with the source's: by output, and by groups of an output whose values differ in kind."""

from collections.abc import Mapping

from edgewise.artifacts.records import OutputAgreement, Summary

TITLE = "Outputs against the source's, SQNR in dB"
Cells = dict[str, dict[str, float]]  # variant -> output with its group -> SQNR in dB


def name_group(one: OutputAgreement) -> str:
    """scores, or boxes[0:4] where the output has parts of different kinds."""
    return one.output + one.group


def list_columns(summary: Summary) -> list[str]:
    """All groups of all outputs in the order of the source; empty where there is only one, which the table shows as it is."""
    found = dict.fromkeys(name_group(one) for row in summary.variants.values() for one in row.proof.outputs)
    return sorted(found) if len(found) > 1 else []


def make_cells(summary: Summary) -> Cells:
    """The figures of each variant that was made."""
    return {
        name: {name_group(one): one.sqnr_db for one in row.proof.outputs} for name, row in summary.variants.items() if row.proof.outputs
    }


def describe_worst(summary: Summary) -> list[str]:
    """A line that names, for each variant, the output or group that lost most; none where there is only one."""
    if not list_columns(summary):
        return []
    worst = {name: row.proof.outputs[0] for name, row in summary.variants.items() if row.proof.outputs}
    texts = [f"{name} {name_group(one)} {one.sqnr_db:.1f}" for name, one in worst.items()]
    return [f"Output that lost most against the source, SQNR in dB: {', '.join(texts)}"] if texts else []


def markdown_table(summary: Summary) -> list[str]:
    """The table for report.md, in Markdown; empty where there is only one group."""
    columns = list_columns(summary)
    if not columns:
        return []
    lines = ["", f"{TITLE}:", "", "| " + " | ".join(["variant", *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    return [*lines, *("| " + " | ".join([name, *format_cells(cells, columns)]) + " |" for name, cells in make_cells(summary).items())]


def format_cells(cells: Mapping[str, float], columns: list[str]) -> list[str]:
    return [f"{cells[column]:.1f}" if column in cells else "" for column in columns]


def page_tables(summary: Summary) -> dict[str, list[str]]:
    """{variant: cells} for the page, with the heading under an empty name; empty where there is only one group."""
    columns = list_columns(summary)
    rows = {name: format_cells(cells, columns) for name, cells in make_cells(summary).items()}
    return {"": columns, **rows} if columns else {}
