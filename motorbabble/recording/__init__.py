"""Sessions on disk: written so that they survive anything, read back exactly. docs/session-format.md is the format."""
