// How does Python learn of every launch, copy, wait and compilation while it asks for it?
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <pybind11/pybind11.h>

#include "../runtime/observer.h"

namespace gaudi {

class Graph;

class DeviceObserver : public runtime::Observer {
 public:
  // An operator has been launched alone or inside a launch region, or has been gathered. Arguments
  // and results are the host aliases.
  virtual void operator_ran(const c10::OperatorHandle& op, int card,
                            c10::ArrayRef<c10::IValue> arguments,
                            c10::ArrayRef<c10::IValue> results, bool gathered,
                            int64_t started_ns) = 0;
  // What has been gathered on a card has been launched; `text` is equal for equal work.
  virtual void lazily_launched(int card, const std::string& text) = 0;
  virtual void replayed(Graph& graph, int64_t started_ns) = 0;
};

// The only kind of observer that is ever set.
inline DeviceObserver* device_observer() {
  return static_cast<DeviceObserver*>(runtime::observer());
}

// Let the methods of a Python object, named as above, be called from now on; None ends it. An
// exception of theirs is reported and does not reach the program.
void observe(pybind11::object listener);

// A list of (name, overload, arguments, results) of a graph's operators, in order.
pybind11::list recorded_calls(const Graph& graph);

}  // namespace gaudi
