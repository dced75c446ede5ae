"""What a machine can do: what a run will take (plan), what is missing (doctor), how fast it is (throughput).

`plan` needs torch; `doctor` does not import it, and leaves what may crash or hang to child processes.
"""
