// What the host asked for: launches by kernel, products, copies by direction, waits, allocations.
#include "device.h"

#include <map>

namespace emulated {
namespace {
struct Total { size_t times = 0, bytes = 0; };
std::map<std::string, Total> totals;
}  // namespace

void count(const std::string& what, size_t bytes) {
  Guard guard(lock);
  Total& total = totals[what];
  total.times++;
  total.bytes += bytes;
}

}  // namespace emulated

using namespace emulated;

// A line for each: how often, how many bytes, what. It is there until the next call.
API const char* emulatorCounts() {
  static std::string text;
  Guard guard(lock);
  text.clear();
  for (auto& [what, total] : totals) text += std::to_string(total.times) + " " + std::to_string(total.bytes) + " " + what + "\n";
  return text.c_str();
}
