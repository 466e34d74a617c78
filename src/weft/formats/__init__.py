"""Kinds of files, each read into text by a module of its own.

Each is given a file's bytes and hands on its text as people see it on the page, once and in the order of reading.
Nothing in a file is run, nothing that it refers to is fetched, and what it unpacks to is bounded.
"""
