"""The published advice on edge models, claim by claim: see __main__.py."""
