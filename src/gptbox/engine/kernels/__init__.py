"""The engine's arithmetic, which `gptbox.engine.kernels.build` compiles with Numba.

Only what compiles imports these modules; what runs the engine loads what was compiled: see `gptbox.engine.native`.
"""
