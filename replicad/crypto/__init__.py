"""Proofs: hashes, keys, signed envelopes, sessions, certificates. The only importer of PyNaCl and cryptography; decides nothing about rights."""
