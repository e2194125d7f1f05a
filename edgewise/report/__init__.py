"""The report: rows with verdicts and explanations, the choice, table, figure and page."""
