"""What is written about an evaluation: tables, files, grids, curves and one offline page.

It reads results and computes no metric. May import predictor, metrics and the floors below.
"""
