"""What the notebooks need: the dial, Colab, widgets, the index."""
