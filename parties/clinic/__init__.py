"""``tessera clinic``: a web page on the clinic's own computer, on which a photograph becomes shares and an answer."""
