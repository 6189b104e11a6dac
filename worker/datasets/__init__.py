"""Photos: from an archive or a folder to an index and a pack (without torch), and from those to arrays."""
