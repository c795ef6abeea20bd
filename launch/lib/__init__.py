"""Shared parts of the commands: flags, messages, jobs and help pages."""
