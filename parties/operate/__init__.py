"""What whoever runs a cluster looks at: checks of links and stores, the state of servers, metrics."""
