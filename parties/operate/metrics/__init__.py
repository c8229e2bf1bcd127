"""What a server counts, and the page that scrapers read."""
