"""The softmax kernels, for few and for many classes, float32 and float64, and the losses of their rows."""
