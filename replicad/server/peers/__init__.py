"""The peer door: links, joining, and (mounted from their own modules) content for other nodes. Decides nothing: services do."""
