// What cuBLAS and cuRAND share: a handle belongs to the device that was current when it was made, and to a stream.
#pragma once
#include "device.h"

namespace emulated {

struct LibraryHandle {
  void* stream = nullptr;
  int of_device = device;
};
// The library's own status: `failed` where the stream refuses, or another device is current.
inline int submit_or(int failed, const LibraryHandle& handle, Work work) {
  if (handle.of_device != device || !launches_here(handle.stream)) return failed;
  return submit(handle.stream, std::move(work)) ? failed : 0;
}

}  // namespace emulated
