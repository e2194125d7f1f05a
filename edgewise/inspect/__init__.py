"""Inspecting a model file before it is used."""
