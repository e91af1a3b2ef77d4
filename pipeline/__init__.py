"""From the web to batches: crawl, fetch, transcode, shards, splits, clips and the loader. Knows nothing of Ray."""
