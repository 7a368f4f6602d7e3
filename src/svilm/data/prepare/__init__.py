"""One short file per public dataset: its official annotation files become a manifest (see ``common.prepare``)."""
