"""How good will a network be, judged before it is trained? Zero-cost proxies, by their published formulas.

Each function takes a plain network and a few images and leaves the network as it was; batch norm uses the statistics of
the batch. Weights are those of convolutions and linear layers, without biases and batch norm.

References are in the functions; the survey of Li et al., 2024 (Zero-Shot NAS, TPAMI) has most of them side by side.
"""
