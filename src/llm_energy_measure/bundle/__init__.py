"""Bundles: packages of results to publish with a paper. Standard tools can check them.

A bundle is a BagIt bag with RO-Crate metadata in a deterministic ZIP. `creation` packs stored files, `checking`
verifies a bundle, `opening` extracts it. The functions take ids and files; `cli` selects experiments and prints.
"""
