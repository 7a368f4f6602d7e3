"""The page of an index, `svilm app INDEX`: asked in words in a browser, answered with moments that play."""
