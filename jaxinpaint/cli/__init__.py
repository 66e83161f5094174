"""The `jaxinpaint` command: flags, sentences, exit codes; the work is done in the rooms below."""
