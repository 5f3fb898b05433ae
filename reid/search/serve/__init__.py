"""A web page to try a model: a local server that answers searches in an index.

A request passes, in this order, `connections` (idle ones are limited), `security` (allowed hosts and origins),
`authentication` (a token, if one is set), `uploads` and `request` (a bounded upload, kept in memory), `work_queue` (one
search at a time) and `service`. Of the disk it can see only what `live_index` reads for the index.
"""
