"""The demo project that `wtb init` copies into a folder and `wtb demo` runs."""
