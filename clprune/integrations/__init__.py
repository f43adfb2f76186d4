"""The recorder inside other people's tools: one file each, named after the library that it needs."""
