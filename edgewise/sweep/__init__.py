"""What `edgewise.cli.sweep` is made of. From the command line to the experiments, in the order in which it happens:

points    the command line as points, each checked before anything runs
code      the working tree as it is now, uncommitted files included, as one tree of git
clone     a shared clone of the repository with that tree: where a point runs, and where the common work is done
common    the stages that no point changes, done once
world     what a result depends on besides the settings and the code: the data and the device
job       one point: clone, `dvc repro`, `dvc exp save`, push of the one reference
schedulers  jobs that the scheduler of a cluster ended
outcome   what became of a point, as a file
summary   front, effects, picture, table
"""
