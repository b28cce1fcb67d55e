"""Models for demonstration, tests and benchmarks; every one is made by a script in this folder.

Nothing here is downloaded: `tiny` makes random-weight models of every supported architecture,
`train_demo` trains the demo model from text that `demo_text` generates; `demo_score` measures it.
"""
