"""Multi-stage layerwise training of BERT in TensorFlow."""
