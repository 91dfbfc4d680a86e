"""Measurements: one harness, one file per question, results/ for what was measured."""
