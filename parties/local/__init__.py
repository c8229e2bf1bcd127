"""Clusters of one's own: all servers on this machine, as processes or within this one."""
