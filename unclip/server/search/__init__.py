"""Searching over HTTP: clip-retrieval's contract and the page's, over one process that holds the CLIPs and the indices."""
