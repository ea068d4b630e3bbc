"""Recurrent layers over the columns or rows of a map, and loops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tests.corpus.blocks import STEM, chain
from tests.corpus.registry import network
from torch import Tensor, nn


class Rows(nn.Module):
    """Runs a recurrent layer over 8 rows of means, and adds its outputs to the map."""

    def __init__(self, make: Callable[..., nn.RNNBase], **options: bool) -> None:
        super().__init__()
        self.layer = make(STEM, STEM, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        sequence = x.mean(3).transpose(1, 2)
        return x + self.layer(sequence)[0][..., :STEM].transpose(1, 2)[..., None]


@network("LSTM")
def lstm() -> nn.Module:
    return chain(Rows(nn.LSTM))


@network("GRU in both directions")
def gru() -> nn.Module:
    return chain(Rows(nn.GRU, bidirectional=True))


@network("RNN")
def rnn() -> nn.Module:
    return chain(Rows(nn.RNN))


@network("a loop over an LSTM cell with a state of zeros")
def cells() -> nn.Module:
    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(STEM, STEM)

        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean((2, 3))
            hidden = state = torch.zeros_like(mean)
            for _ in range(3):
                hidden, state = self.cell(mean, (hidden, state))
            return x * hidden.sigmoid()[..., None, None]

    return chain(Cells())


@network("a running sum, and a sort along rows")
def scans() -> nn.Module:
    return chain(lambda x: x.cumsum(2) / 16 + x.sort(3)[0])
