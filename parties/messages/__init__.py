"""What members say to each other, one file a conversation, and what a failure looks like on the wire."""
