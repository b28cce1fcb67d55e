#include "host_fallbacks.h"

#include <mutex>
#include <unordered_set>

namespace gaudi::runtime {
namespace detail {
std::atomic<bool> any_on_host{false};
}
namespace {

std::mutex g_mutex;
std::unordered_set<std::string> g_named;
std::map<std::string, int64_t> g_counts;

}  // namespace

void place_on_host(const std::vector<std::string>& operators) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  g_named = {operators.begin(), operators.end()};
  detail::any_on_host.store(!g_named.empty());
}

bool detail::named_for_host(const std::string& operator_name) {
  const auto start = operator_name.find("::") + 2;
  const auto end = operator_name.find('.', start);
  const std::lock_guard<std::mutex> lock(g_mutex);
  return g_named.count(operator_name) != 0 || g_named.count(operator_name.substr(0, end)) != 0 ||
         g_named.count(operator_name.substr(start)) != 0 ||
         g_named.count(operator_name.substr(start, end == std::string::npos ? end : end - start)) != 0;
}

void note_host_fallback(const std::string& operator_name) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  ++g_counts[operator_name];
}

std::map<std::string, int64_t> host_fallbacks() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  return g_counts;
}

}  // namespace gaudi::runtime
