"""The machine that a process runs on: its disk, files that nobody else reads, logs, core dumps, processor, counters."""
