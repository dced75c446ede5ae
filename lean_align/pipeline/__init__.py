"""How a run goes, whatever its stages: the graph, processes, locks, engines and backends.

A stage is known by its record (`stage.Stage`) alone, and `lean_align.stages` has the list of them.
"""
