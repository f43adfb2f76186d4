"""The Recorder inside somebody else's loop: one file a framework."""
