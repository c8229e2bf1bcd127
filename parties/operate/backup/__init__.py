"""What of a server's data folder may be kept elsewhere and put back: models and data sets, never preprocessing."""
