"""Sessions leave and arrive in other people's formats; docs/exports.md says which, and what each holds."""
