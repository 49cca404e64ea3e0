"""Very many texts: files in, the same rows with their entities out (`run.annotate`).

Read by `readers`, cut into `shards`, resumed by `manifest`."""
