"""Keeps what was measured, resumes, and makes plans."""
