#include <torch_headers.h>

#include "lazy_graph.h"

#include <map>
#include <mutex>
#include <unordered_set>
#include <utility>

#include "call_text.h"
#include "device_storage.h"
#include "observer.h"
#include "operator_facts.h"

namespace gaudi {
namespace {

struct Gathered {
  CallText calls;
  int64_t operators = 0;
  std::unordered_set<const c10::StorageImpl*> written;
};

// Never held while something waits for the interpreter.
std::mutex g_mutex;
std::map<int, Gathered> g_gathered;  // by card
int64_t g_max_operators = 0;

ObtainRecipe& recipe_of() {
  static auto* instance = new ObtainRecipe();
  return *instance;
}

}  // namespace

void gather_operators(ObtainRecipe obtain, int64_t max_operators) {
  cut_lazy_graphs();
  const std::lock_guard<std::mutex> lock(g_mutex);
  recipe_of() = std::move(obtain);
  g_max_operators = max_operators;
  detail::g_lazy.store(true);
}

void gather_nothing() {
  cut_lazy_graphs();
  detail::g_lazy.store(false);
}

void gather(const c10::OperatorHandle& op, int card, c10::ArrayRef<c10::IValue> arguments,
            c10::ArrayRef<c10::IValue> results) {
  const auto& facts = operator_facts(op);
  bool full = false;
  {
    const std::lock_guard<std::mutex> lock(g_mutex);
    auto& graph = g_gathered[card];
    graph.calls.add(facts.name, arguments);
    const auto write = [&](const at::Tensor& tensor) { graph.written.insert(storage_of(tensor)); };
    for (const auto& argument : facts.arguments) {
      if (argument.written) for_each_tensor(arguments[argument.index], write);
    }
    for (const auto& result : results) {
      for_each_tensor(result, [&](const at::Tensor& tensor) {
        graph.calls.meet(tensor);
        write(tensor);
      });
    }
    full = ++graph.operators >= g_max_operators;
  }
  if (full) detail::cut_all();
}

bool detail::written(const at::Tensor& host) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  for (const auto& [card, graph] : g_gathered) {
    if (graph.written.count(storage_of(host)) != 0) return true;
  }
  return false;
}

void detail::cut_all() {
  std::map<int, Gathered> gathered;
  ObtainRecipe obtain;
  {
    const std::lock_guard<std::mutex> lock(g_mutex);
    gathered.swap(g_gathered);
    if (gathered.empty()) return;
    obtain = recipe_of();
  }
  for (const auto& [card, graph] : gathered) {
    obtain(graph.calls.text(), graph.operators);
    runtime::bump(runtime::counters().lazy_launches);
    if (auto* watching = device_observer()) watching->lazily_launched(card, graph.calls.text());
  }
}

}  // namespace gaudi
