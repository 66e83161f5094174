"""The experiments, one file each; in an installed library they are `jaxinpaint.configs`."""
