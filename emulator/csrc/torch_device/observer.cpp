#include <torch_headers.h>

#include "observer.h"

#include <torch/csrc/jit/python/pybind_utils.h>

#include "../runtime/clock.h"
#include "../runtime/counters.h"
#include "graph.h"

namespace py = pybind11;

namespace gaudi {
namespace {

py::tuple as_tuple(c10::ArrayRef<c10::IValue> values) {
  py::tuple tuple(values.size());
  for (size_t i = 0; i < values.size(); ++i) tuple[i] = torch::jit::toPyObject(values[i]);
  return tuple;
}

class Listener : public DeviceObserver {
 public:
  void listen(py::object listener) { listener_ = std::move(listener); }

  void copied(int card, bool to_card, int64_t bytes, int64_t started_ns) override {
    tell("copied", card, to_card, bytes, started_ns, runtime::now_ns());
  }
  void host_waited(const char* what) override { tell("host_waited", what, runtime::now_ns()); }
  void region_ended() override { tell("region_ended", runtime::now_ns()); }
  void compiled(const std::string& kind, const std::string& detail, int64_t us) override {
    tell("compiled", kind, detail, us, runtime::now_ns());
  }
  void operator_ran(const c10::OperatorHandle& op, int card, c10::ArrayRef<c10::IValue> arguments,
                    c10::ArrayRef<c10::IValue> results, bool gathered,
                    int64_t started_ns) override {
    const auto ended_ns = runtime::now_ns();
    const py::gil_scoped_acquire gil;
    const auto& name = op.operator_name();
    const char* kind = gathered ? "lazy" : runtime::in_launch_region() ? "region" : "operator";
    tell("operator_ran", kind, name.name, name.overload_name, card, as_tuple(arguments),
         as_tuple(results), started_ns, ended_ns);
  }
  void lazily_launched(int card, const std::string& text) override {
    tell("lazily_launched", card, text);
  }
  void replayed(Graph& graph, int64_t started_ns) override {
    const auto ended_ns = runtime::now_ns();
    const py::gil_scoped_acquire gil;
    tell("replayed", py::cast(&graph, py::return_value_policy::reference), started_ns, ended_ns);
  }

 private:
  template <typename... Arguments>
  void tell(const char* method, Arguments&&... arguments) {
    const py::gil_scoped_acquire gil;
    if (!listener_) return;  // it has just ended
    try {
      const py::object listener = listener_;  // which may end itself
      listener.attr(method)(std::forward<Arguments>(arguments)...);
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable(method);
    }
  }

  py::object listener_;
};

}  // namespace

void observe(py::object listener) {
  // Never destroyed: a thread may be about to call it.
  static auto* instance = new Listener();
  const bool on = !listener.is_none();
  if (!on) runtime::set_observer(nullptr);
  instance->listen(on ? std::move(listener) : py::object());
  if (on) runtime::set_observer(instance);
}

py::list recorded_calls(const Graph& graph) {
  py::list calls;
  graph.for_each_call([&](const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments,
                          c10::ArrayRef<c10::IValue> results) {
    const auto& name = op.operator_name();
    calls.append(
        py::make_tuple(name.name, name.overload_name, as_tuple(arguments), as_tuple(results)));
  });
  return calls;
}

}  // namespace gaudi
