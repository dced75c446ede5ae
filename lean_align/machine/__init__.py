"""What a machine can do: what a run will take (plan), what is missing (doctor), what it makes a second (throughput).

`plan` needs torch; `doctor` imports none, and leaves what may crash or hang to processes of their own.
"""
