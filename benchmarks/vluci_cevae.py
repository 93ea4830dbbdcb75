"""A plain CEVAE (Louizos et al. 2017) to compare with: a latent behind X, T and Y, inferred by amortised networks."""

from __future__ import annotations

from typing import Any

import numpy as np


def cevae_effects(
    X: Any,
    t: Any,
    y: Any,
    *,
    n_latents: int = 10,
    hidden: int = 64,
    epochs: int = 40,
    batch: int = 128,
    seed: int = 0,
) -> Any:
    """Effects (n,) of treatment 1 against 0 as the decoder sees them, averaged over q(z | x, t, y)."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(seed)
    mean, sd = y.mean(), y.std()
    x = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
    T, Y = (torch.tensor(v[:, None], dtype=torch.float32) for v in (t, (y - mean) / sd))
    p, d = x.shape[1], n_latents

    def mlp(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU(),
                             nn.Linear(hidden, outputs))  # fmt: skip

    q0, q1, to_x, to_t, y0, y1 = mlp(p + 1, 2 * d), mlp(p + 1, 2 * d), mlp(d, 2 * p), mlp(d, 1), mlp(d, 1), mlp(d, 1)
    log_sd = nn.Parameter(torch.zeros(1))
    nets = nn.ModuleList([q0, q1, to_x, to_t, y0, y1])
    optimizer = torch.optim.Adam([*nets.parameters(), log_sd], lr=2e-3, weight_decay=1e-4)

    def posterior(x: Any, t: Any, y: Any) -> tuple[Any, Any]:
        both = torch.cat([x, y], 1)
        return torch.where(t > 0, q1(both), q0(both)).chunk(2, 1)  # type: ignore[no-any-return]

    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            xb, tb, yb = x[rows], T[rows], Y[rows]
            m, s = posterior(xb, tb, yb)
            z = m + torch.exp(s) * torch.randn_like(m)
            mx, sx = to_x(z).chunk(2, 1)
            sx = sx.clamp(-3, 3)
            log_p = (-0.5 * ((xb - mx) * torch.exp(-sx)) ** 2 - sx).sum(1)
            log_p = log_p - F.binary_cross_entropy_with_logits(to_t(z), tb, reduction="none")[:, 0]
            mean_y = torch.where(tb > 0, y1(z), y0(z))
            log_p = log_p + (-0.5 * ((yb - mean_y) * torch.exp(-log_sd)) ** 2 - log_sd)[:, 0]
            kl = (0.5 * (m**2 + torch.exp(2 * s) - 1) - s).sum(1)
            loss = (kl - log_p).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(nets.parameters(), 5.0)
            optimizer.step()
    with torch.no_grad():
        m, s = posterior(x, T, Y)
        total = torch.zeros(len(x), 1)
        for _ in range(50):
            z = m + torch.exp(s) * torch.randn_like(m)
            total += y1(z) - y0(z)
    return np.asarray((total / 50)[:, 0].numpy() * sd, dtype=float)
