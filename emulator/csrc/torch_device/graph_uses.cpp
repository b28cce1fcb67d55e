// Which memory does a replay use that others may use too? For the check of the order of work.
#include <torch_headers.h>

#include <algorithm>
#include <map>

#include "device_storage.h"
#include "graph.h"
#include "launch.h"
#include "operator_facts.h"

namespace gaudi {

void Graph::find_outside_uses() {
  std::map<std::pair<c10::StorageImpl*, bool>, std::pair<uintptr_t, uintptr_t>> spans;
  const auto add = [&](const at::Tensor& tensor, bool write) {
    if (!tensor.defined() || tensor.numel() == 0) return;
    auto* storage = storage_of(tensor);
    const auto known = storages_.find(storage);
    if (known == storages_.end() || known->second.internal) return;
    const auto span = span_of(tensor);
    const auto [it, fresh] = spans.emplace(std::pair{storage, write}, span);
    if (fresh) return;
    it->second.first = std::min(it->second.first, span.first);
    it->second.second = std::max(it->second.second, span.second);
  };
  for (const auto& step : steps_) {
    for (const auto& argument : operator_facts(step.op).arguments) {
      const auto& value = step.args[argument.index];
      if (value.isTensor()) {
        add(value.toTensor(), argument.written);
      } else if (value.isList()) {
        for (const c10::IValue& element : value.toListRef()) {
          if (element.isTensor()) add(element.toTensor(), argument.written);
        }
      }
    }
    for (const auto& output : step.fresh) add(output.captured, true);
  }
  for (const auto& [key, span] : spans) {
    outside_.push_back({key.first, span.first, span.second, key.second});
  }
}

void Graph::note_outside_uses() const {
  static const std::string name = "a graph's replay";
  StreamLaunch launch(card_, name);
  for (const auto& use : outside_) launch.note_span(*use.storage, use.begin, use.end, use.write);
}

}  // namespace gaudi
