"""What `stages.report` is made of: pairing, verdicts, choice; then table, figure, points and page."""
