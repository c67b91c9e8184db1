"""Writes images.h: one test image of each digit, as float pixels, for main.c.

python images.py TEST.npz images.h
"""

import sys

import numpy as np

data = np.load(sys.argv[1])
first = [int(np.flatnonzero(data["y"] == digit)[0]) for digit in range(10)]
with open(sys.argv[2], "w") as file:
    file.write(f"#define IMAGES {len(first)}\nstatic const int labels[] = {{{', '.join(map(str, range(10)))}}};\n")
    file.write("static const float images[][64] = {\n")
    for index in first:
        file.write(f"    {{{', '.join(f'{float(value):.1f}f' for value in data['x'][index].ravel())}}},\n")
    file.write("};\n")
