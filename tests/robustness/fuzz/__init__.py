"""A mutation fuzzer for every reader of files; docs/trust.md tells what it checks."""
