"""Sweeps: many sets of choices, each run as a DVC experiment in a shared clone, and judged together.

points      overrides from the command line as points, each checked before anything runs
clone       a shared clone of the repository with a snapshot of the working tree
plan        what all points share, the common stages included
start       checks, snapshot, common stages
app         the Hydra application and its launchers; jobs that a scheduler ended
execution   one point: clone, `dvc repro`, `dvc exp save`, push; its outcome as a file
effects     main effects of the swept keys
summary     rows, Pareto front, effects
conclusion  summary, table, picture, MLflow
"""
