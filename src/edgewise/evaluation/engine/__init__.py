"""How many masks are run: steps that masks share, folded norms, pieces of batches, and memory."""

from .options import EngineOptions as EngineOptions
