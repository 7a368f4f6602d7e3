"""The paper's tables as commands: `svilm reproduce table6 --data-root DIR`."""
