// What cuBLAS and cuRAND share: their work goes to their stream.
#pragma once
#include "device.h"

namespace emulated {
// The library's own status: `failed` where the stream refuses.
inline int submit_or(int failed, const void* stream, Work work) { return submit(stream, std::move(work)) ? failed : 0; }
}  // namespace emulated
