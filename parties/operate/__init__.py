"""What whoever runs a cluster looks at: checks of links and data folders, the state of servers, metrics."""
