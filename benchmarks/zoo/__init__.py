"""Networks of other libraries, with random weights: which of them come over, and what a prediction costs."""
