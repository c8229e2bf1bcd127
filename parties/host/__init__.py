"""The machine that a process runs on: disk, private files, logs, core dumps, processor, memory, counters."""
