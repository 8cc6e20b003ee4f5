"""The clients' door: files, ranges and conditions over HTTP, read only."""
