"""Episodes: their schema, their files, the simulators that make them and the pipeline that batches them."""
