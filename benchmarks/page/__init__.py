"""Records of measurements as a page of tables and pictures."""
