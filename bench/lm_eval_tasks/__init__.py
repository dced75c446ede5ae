"""What bench/cross_check.py is made of: lm-eval's side, ours, and how they are compared.

`gsm8k.yaml` and `math500.yaml` are lm-eval's own tasks with the problems and the prompt of ours; `run.py` and
`scoring.py` run in the environment that `environment.py` makes, where lean_align is not installed.  `sides.py` runs
both sides, `findings.py` compares them.
"""
