"""A trained model on videos, where users import it from: `from utils.predictor import Predictor`."""

from utils.inference.predictor import Answer, Embeddings, Match, Predictor

__all__ = ["Answer", "Embeddings", "Match", "Predictor"]
