"""A worker of a party: the process that computes runs which the party's head has placed on it."""
