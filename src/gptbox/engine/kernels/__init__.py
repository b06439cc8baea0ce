"""The engine's arithmetic in Numba, compiled by `gptbox.engine.kernels.build`.

Only compilation imports these modules; inference loads the compiled code: see `gptbox.engine.native`.
"""
