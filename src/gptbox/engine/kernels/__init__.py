"""The engine's arithmetic, compiled by Numba: in this process, or ahead of time by `gptbox.engine.kernels.build`.

Only what compiles imports these modules; a program that finds a library compiled for its processor needs no compiler.
"""
