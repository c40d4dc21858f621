"""Episodes: their schema, their files, importers of others' and the batches that trainings read."""
