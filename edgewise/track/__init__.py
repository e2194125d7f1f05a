"""What `stages.track` is made of: the records of the runs, the receipt that lets it skip, the store, and the registry of models."""
