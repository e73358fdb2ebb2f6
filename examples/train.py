"""Fit a line to noisy points by gradient descent: a script as people have them, with arguments."""

import argparse
import time

import numpy as np

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--rate", type=float, default=0.3)
options = parser.parse_args()

random = np.random.default_rng(0)
x = random.uniform(-1, 1, 200)
y = 3 * x + 1 + random.normal(0, 0.1, 200)

slope, offset = 0.0, 0.0
for epoch in range(options.epochs):
    error = slope * x + offset - y
    slope -= options.rate * 2 * (error * x).mean()
    offset -= options.rate * 2 * error.mean()
    print(f"epoch {epoch + 1}: loss {np.square(error).mean():.4f}", flush=True)
    time.sleep(0.1)

print(f"y = {slope:.2f} x + {offset:.2f}")
