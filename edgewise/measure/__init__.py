"""Measuring a variant on a device: what is asked of the agent, in which order, and what its answers mean."""
