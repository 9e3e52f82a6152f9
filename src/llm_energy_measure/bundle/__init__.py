"""Bundles: sealed packages of results that travel with a paper, and that standard tools can check.

A bundle is a BagIt bag with RO-Crate metadata in a deterministic ZIP. `creation` packs stored files, `checking`
verifies a bundle, `opening` extracts it. The functions take ids and files; `cli` selects experiments and prints.
"""
