"""Drawing compiled for this computer: in one pass what OpenCV does in many, which draws where there is no compiler.

- `*.c`, `grid.h`: the kernels. - `build`: sources → a library kept in the cache. - `kernels`: the library, called with
  arrays. - `loader`: the one of this process. - `prune`: libraries that nobody uses any more.

Each kernel draws what its Python original draws, to the last few pixels. The original stays: it is the reference, and
draws until the library is there.
"""
