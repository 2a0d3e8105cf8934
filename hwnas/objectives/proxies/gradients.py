"""Proxies from gradients of the weights: grad-norm, SNIP, Fisher, GraSP, SynFlow, ZiCo."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwnas.data.inputs import CPU
from hwnas.objectives.proxies.networks import hooked, training_copy, twice_differentiable, weights_of
from hwnas.task import Task


def saliencies(net: nn.Module, images: Tensor, targets: Tensor, task: Task) -> dict[str, float]:
    """Return ``grad_norm``, ``snip`` and ``fisher``, from one pass forward and back of the loss.

    - ``grad_norm``: the sum over layers of the norm of the gradient.
    - ``snip``: the sum of ``|w dL/dw|`` over all weights.
    - ``fisher``: the sum over channels of half the mean square of ``activation * gradient`` summed over positions;
      activations are the outputs of convolutions and linear layers.

    Args:
        net: freshly initialised.
        images: ``(B, C, H, W)``.
        targets: of the same images.
        task: whose loss is taken; the papers take the cross entropy.

    Reference:
        Abdelfattah et al., 2021, Zero-Cost Proxies for Lightweight NAS; Lee et al., 2019, SNIP; Turner et al., 2020,
        BlockSwap (Fisher).
    """
    net = training_copy(net, images.device)
    weights = weights_of(net)
    outputs: list[Tensor] = []
    with hooked(net, (nn.Conv2d, nn.Linear), lambda m, i, o: outputs.append(o)):
        loss = task.loss(net(images), targets)
    found = torch.autograd.grad(loss, [*weights, *outputs], allow_unused=True)
    gradients, of_outputs = found[: len(weights)], found[len(weights) :]
    pairs = [(w.detach(), g) for w, g in zip(weights, gradients, strict=True) if g is not None]
    information = 0.0
    for output, gradient in zip(outputs, of_outputs, strict=True):
        if gradient is not None:
            product = output.detach() * gradient
            per_channel = product.flatten(2).sum(2) if product.ndim == 4 else product  # (B, C)
            information += float((0.5 * per_channel.square().mean(0)).sum())
    return {
        "grad_norm": float(sum(g.norm() for _, g in pairs)),
        "snip": float(sum((w * g).abs().sum() for w, g in pairs)),
        "fisher": information,
    }


def grasp(net: nn.Module, images: Tensor, targets: Tensor, task: Task) -> float:
    """Return the sum of ``-(H g) w`` over all weights, with H the Hessian; arguments as of `saliencies`.

    Reference:
        Wang et al., 2020, GraSP; its sign, so that larger is better, as in Abdelfattah et al., 2021.
    """
    net = twice_differentiable(training_copy(net, images.device))
    weights = weights_of(net)
    loss = task.loss(net(images), targets)
    gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    product = sum((g * g.detach()).sum() for g in gradients if g is not None)
    if not isinstance(product, Tensor) or not product.requires_grad:
        return 0.0
    second = torch.autograd.grad(product, weights, allow_unused=True)
    return -float(sum((w * hg).detach().sum() for w, hg in zip(weights, second, strict=True) if hg is not None))


def synflow(net: nn.Module, input_shape: Sequence[int], device: torch.device = CPU) -> float:
    """Return the sum of ``|w| dR/d|w|`` with R the sum of outputs for an input of ones, all weights positive.

    Batch norm is left out, and everything is computed in float64: values span tens of orders of magnitude.

    Args:
        net: freshly initialised.
        input_shape: ``(C, H, W)``.
        device: computes it.

    Reference:
        Tanaka et al., 2020, Pruning neural networks without any data by iteratively conserving synaptic flow.
    """
    net = training_copy(net, device).double()
    with torch.no_grad():
        for p in net.parameters():
            p.abs_()
    with hooked(net, nn.BatchNorm2d, lambda m, inputs, output: inputs[0]):
        total = net(torch.ones(1, *input_shape, dtype=torch.float64, device=device)).sum()
    weights = weights_of(net)
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    return float(sum((w * g).detach().abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None))


def zico(net: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], task: Task) -> float:
    """Return ZiCo: the sum over layers of ``log sum E|g| / std(g)``, large where gradients are large and steady.

    The sum inside is over the weights of a layer, E and std (of the population) are over batches; weights whose
    gradient does not vary are left out, and so are layers without any other.

    Args:
        net: freshly initialised.
        batches: ``(B, C, H, W)`` images and their targets, two or more batches of one size; ZiCo uses two.
        task: whose loss is taken; ZiCo takes the cross entropy.

    Returns:
        Minus infinity where no gradient varies in any layer.

    Reference:
        Li et al., 2023, ZiCo (arXiv 2301.11300), and its code.
    """
    net = training_copy(net, batches[0][0].device)
    weights = weights_of(net)
    total = [torch.zeros_like(w, dtype=torch.float64) for w in weights]
    gradients = []
    for images, targets in batches:
        found = torch.autograd.grad(task.loss(net(images), targets), weights, allow_unused=True)
        gradients.append([t if g is None else g.double() for g, t in zip(found, total, strict=True)])
    layers = []
    for of_layer in zip(*gradients, strict=True):
        g = torch.stack(of_layer)
        std = g.std(0, correction=0)
        steady = float((g.abs().mean(0)[std > 0] / std[std > 0]).sum())
        if steady > 0:
            layers.append(math.log(steady))
    return sum(layers) if layers else -math.inf
