"""The embedded default: generated word problems and a tiny trained model that solves some of them."""
