"""Studies: a question with choices of its own, answered beside the project."""
