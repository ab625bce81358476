"""Dark experience replay ++: buffered pairs keep their embeddings, and are learned again."""

from __future__ import annotations

from torch import Tensor

from edge_cmcl.host.step import info_nce
from edge_cmcl.host.strategies.base import Batch
from edge_cmcl.host.strategies.der import Der


class DerPlusPlus(Der):
    """Add beta times the loss of buffered pairs to DER.

    P. Buzzega et al., NeurIPS 2020, arXiv 2004.07211, section 3. The paper draws two batches from the buffer, one for
    outputs and one for labels; one serves both here, which has the same expectation and costs half.
    """

    name = "derpp"
    title = "DER++"
    source = "P. Buzzega et al., NeurIPS 2020, section 3 (DER++)"
    grid = {"alpha": (1.0, 3.0), "beta": (1.0, 0.5)}  # noqa: RUF012

    def replay(self, memory: Batch, a: Tensor, b: Tensor) -> Tensor:
        """Return both terms."""
        return super().replay(memory, a, b) + self.own("beta") * info_nce(a, b[None], memory.ids[None])
