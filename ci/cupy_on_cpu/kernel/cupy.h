// kernel.h and what CuPy puts before every kernel: precompiled.
#pragma once
#include "kernel.h"

#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
