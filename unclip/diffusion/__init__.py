"""Gaussian diffusion as functions of tensors and callables; nothing here knows a network.

Read in this order: `schedule` (how much noise, which timesteps), `process` (adding noise, what a network predicts, losses),
`samplers` (from noise to data), `guidance` (what is done to an answer before a sampler sees it).
"""
