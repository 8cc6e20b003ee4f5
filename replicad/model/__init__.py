"""The nouns: identifiers, paths, chunks, manifests, records, members, events. No input, no output, no decisions."""
