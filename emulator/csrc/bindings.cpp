// What does Python see of the extension? The module gaudi_emulator._C.
#include <torch_headers.h>

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "distributed/bindings.h"
#include "robustness_bindings.h"
#include "runtime/counters.h"
#include "runtime/host_fallbacks.h"
#include "runtime/memory.h"
#include "runtime/stream.h"
#include "torch_device/card_indices.h"
#include "torch_device/device_storage.h"
#include "torch_device/fallback.h"
#include "torch_device/generator.h"
#include "torch_device/graph.h"
#include "torch_device/integers.h"
#include "torch_device/kernel_time.h"
#include "torch_device/launch.h"
#include "torch_device/lazy_graph.h"
#include "torch_device/observer.h"
#include "torch_device/operator_facts.h"
#include "torch_device/region.h"

namespace py = pybind11;
using torch::wrap_pybind_function;
using torch::wrap_pybind_function_no_gil;

namespace gaudi {
namespace {

void check_card(int card) {
  TORCH_CHECK_INDEX(card >= 0 && card < runtime::card_count(), "invalid device hpu:", card, ": ",
                    runtime::card_count(), " card(s) are visible to this process");
}

// Queued work may need the interpreter (a collective in a graph), so a wait must not hold it.
void* let_go_of_interpreter() {
  return Py_IsInitialized() != 0 && PyGILState_Check() != 0 ? PyEval_SaveThread() : nullptr;
}

void take_interpreter_back(void* thread) {
  if (thread != nullptr) PyEval_RestoreThread(static_cast<PyThreadState*>(thread));
}

// Once per process: size the cards and take over the HPU device.
int64_t activate(int cards, int64_t bytes_per_card, bool poison, const std::string& streams,
                 const std::string& check_streams) {
  const auto schedule = streams == "async"  ? runtime::Schedule::kThread
                        : streams == "late" ? runtime::Schedule::kLate
                                            : runtime::Schedule::kImmediate;
  const auto check = check_streams == "raise" ? runtime::OrderCheck::kRaise
                     : check_streams == "log" ? runtime::OrderCheck::kLog
                                              : runtime::OrderCheck::kOff;
  TORCH_CHECK_VALUE(cards >= 0 && cards <= runtime::kMaxCards, "between 0 and ",
                    runtime::kMaxCards, " cards can be emulated, not ", cards);
  TORCH_CHECK(runtime::card_count() == 0, "the device is already active in this process");
  runtime::configure_memory(cards, bytes_per_card, poison);
  runtime::set_queue_hooks({&at::init_num_threads, &let_go_of_interpreter, &take_interpreter_back});
  runtime::configure_schedule(schedule);
  runtime::configure_order_check(check);
  c10::SetAllocator(kHPU, device_allocator());
  return register_structured_operators();
}

py::dict memory_stats(int card) {
  check_card(card);
  const auto s = runtime::memory_stats(card);
  py::dict d;
  d["total_bytes"] = s.total_bytes;
  d["in_use_bytes"] = s.in_use_bytes;
  d["peak_bytes"] = s.peak_bytes;
  d["allocations"] = s.allocations;
  d["frees"] = s.frees;
  d["out_of_memory_errors"] = s.out_of_memory_errors;
  d["allocated_bytes_total"] = s.allocated_bytes_total;
  d["largest_free_bytes"] = s.largest_free_bytes;
  d["free_pieces"] = s.free_pieces;
  d["fragmented_errors"] = s.fragmented_errors;
  return d;
}

py::dict counters() {
  const auto& c = runtime::counters();
  py::dict d;
  d["eager_launches"] = c.eager_launches.load();
  d["graph_launches"] = c.graph_launches.load();
  d["region_launches"] = c.region_launches.load();
  d["lazy_launches"] = c.lazy_launches.load();
  d["captured_ops"] = c.captured_ops.load();
  d["fused_ops"] = c.fused_ops.load();
  d["h2d_copies"] = c.h2d_copies.load();
  d["h2d_bytes"] = c.h2d_bytes.load();
  d["d2h_copies"] = c.d2h_copies.load();
  d["d2h_bytes"] = c.d2h_bytes.load();
  d["d2d_copies"] = c.d2d_copies.load();
  d["d2d_bytes"] = c.d2d_bytes.load();
  d["host_syncs"] = c.host_syncs.load();
  return d;
}

py::dict compilation_totals() {
  py::dict d;
  for (const auto& [kind, total] : runtime::compilation_totals()) {
    d[py::str(kind)] = py::make_tuple(total.count, total.microseconds);
  }
  return d;
}

py::dict host_fallbacks() {
  py::dict d;
  for (const auto& [name, count] : runtime::host_fallbacks()) d[py::str(name)] = count;
  return d;
}

py::list recent_compilations(size_t limit) {
  py::list list;
  for (const auto& c : runtime::recent_compilations(limit)) {
    list.append(py::make_tuple(c.kind, c.detail, c.microseconds));
  }
  return list;
}

py::dict kernel_time_dict() {
  py::dict d;
  for (const auto& [name, time] : kernel_times()) {
    d[py::str(name)] = py::make_tuple(time.calls, time.nanoseconds);
  }
  return d;
}

at::Tensor host_view(const at::Tensor& tensor, bool written) {
  TORCH_CHECK_VALUE(tensor.device().type() == kHPU, "host_view needs an hpu tensor, got one on ",
                    tensor.device());
  refuse_in_capture("host_view", "what the host does with the bytes would not be repeated");
  static const std::string name = "a collective";
  const auto host = host_alias(tensor);
  StreamLaunch launch(tensor.device().index(), name);
  if (written) {
    launch.writes(host);
  } else {
    launch.reads(host);
  }
  come_after_current_stream(tensor.device().index());
  return host;
}

at::Tensor device_view(const at::Tensor& tensor, int card) {
  TORCH_CHECK_VALUE(tensor.is_cpu(), "device_view needs a CPU tensor, got one on ",
                    tensor.device());
  check_card(card);
  return adopt(tensor, card);
}

void synchronize(int card) {
  check_card(card);
  refuse_in_capture("synchronize", "the host cannot wait for work that is only recorded");
  cut_lazy_graphs();
  runtime::synchronize_card(card);
}

// `obtain(text, operators)` is called at every cut, in the thread that makes it.
void gather_for_python(py::object obtain, int64_t max_operators) {
  static py::object* hook = new py::object();  // never destroyed: a thread may be about to call it
  *hook = std::move(obtain);
  gather_operators(
      [](const std::string& text, int64_t operators) {
        const py::gil_scoped_acquire gil;
        (*hook)(text, operators);
      },
      max_operators);
}

std::string refusal(const std::string& name, const std::string& overload) {
  return operator_facts(c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(),
                                                                       overload.c_str()))
      .refusal;
}

}  // namespace
}  // namespace gaudi

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using namespace gaudi;
  m.def("activate", wrap_pybind_function(&activate), py::arg("cards"), py::arg("bytes_per_card"),
        py::arg("poison"), py::arg("streams"), py::arg("check_streams"));
  m.def("stop_queues", &runtime::stop_queues);
  m.def("order_problems", &runtime::order_problems);

  m.attr("device_type") = static_cast<int>(kHPU);
  m.def("card_count", &runtime::card_count);
  m.def("current_card", &runtime::current_card);
  m.def("set_current_card", wrap_pybind_function([](int card) {
          check_card(card);
          runtime::set_current_card(card);
        }));
  m.def("synchronize", wrap_pybind_function(&synchronize), py::arg("card"));
  m.def("current_stream", wrap_pybind_function([](int card) {
          check_card(card);
          return runtime::current_stream(card);
        }));
  m.def("set_current_stream", wrap_pybind_function([](int card, int64_t stream) {
          check_card(card);
          if (runtime::current_stream(card) != stream) cut_lazy_graphs();
          runtime::set_current_stream(card, stream);
        }));

  m.def("elapsed_ms", wrap_pybind_function([](uintptr_t start, uintptr_t end) {
          // Pointers as torch.Event.event_id shows them; 0 until recorded.
          return c10::impl::getDeviceGuardImpl(kHPU)->elapsedTime(
              reinterpret_cast<void*>(start), reinterpret_cast<void*>(end), 0);
        }));

  m.def("memory_stats", wrap_pybind_function(&memory_stats), py::arg("card"));
  m.def("reset_peak_memory", wrap_pybind_function([](int card) {
          check_card(card);
          runtime::reset_peak(card);
        }));

  m.def("counters", &counters);
  m.def("note_compilation", &runtime::note_compilation, py::arg("kind"), py::arg("detail"),
        py::arg("microseconds"));
  m.def("compilation_totals", &compilation_totals);
  m.def("recent_compilations", &recent_compilations, py::arg("limit"));
  m.def("time_kernels", &time_kernels, py::arg("on"));
  m.def("kernel_times", &kernel_time_dict);
  m.def("launch_region_enter", [] {
    if (!runtime::in_launch_region()) cut_lazy_graphs();
    runtime::launch_region_enter();
  });
  m.def("launch_region_exit", &runtime::launch_region_exit);
  m.def("set_compile_only",
        [](bool on) {
          cut_lazy_graphs();
          runtime::set_compile_only(on);
        },
        py::arg("on"));
  m.def("gather_operators", &gather_for_python, py::arg("obtain"), py::arg("max_operators"));
  m.def("gather_nothing", &gather_nothing);
  m.def("cut_lazy_graphs", &cut_lazy_graphs);
  m.def("forbid_host_reads", &forbid_host_reads, py::arg("reason"));

  m.def("observe", &observe, py::arg("listener"));
  m.def("observed", [] { return runtime::observer() != nullptr; });

  m.def("host_view", wrap_pybind_function(&host_view), py::arg("tensor"),
        py::arg("written") = false);
  m.def("device_view", wrap_pybind_function(&device_view), py::arg("tensor"), py::arg("card"));
  m.def("default_generator", wrap_pybind_function([](int card) {
          check_card(card);
          return default_generator(card);
        }));
  m.def("operator_refusal", wrap_pybind_function(&refusal), py::arg("name"),
        py::arg("overload") = "");

  // Straight from the tensor: programs replace Tensor.data_ptr by a function that asks here.
  m.def("data_ptr", [](const at::Tensor& tensor) {
    return tensor.device().type() == kHPU ? reinterpret_cast<uintptr_t>(tensor.data_ptr()) : 0;
  }, py::arg("tensor"));
  m.def("set_card_indices", &set_card_indices, py::arg("on"));
  m.def("set_native_int64", &set_native_int64, py::arg("on"));
  m.def("place_on_host", &runtime::place_on_host, py::arg("operators"));
  m.def("host_fallbacks", &host_fallbacks);

  bind_robustness(m);
  bind_distributed(m);

  m.def("is_capturing", [] { return Graph::capturing() != nullptr; });
  py::class_<Graph, std::shared_ptr<Graph>>(m, "Graph")
      .def(py::init<>())
      .def("capture_begin", wrap_pybind_function([](Graph& g) { g.capture_begin(); }))
      .def("capture_end", wrap_pybind_function([](Graph& g) { g.capture_end(); }))
      .def("replay", wrap_pybind_function_no_gil([](Graph& g) { g.replay(); }))
      .def("reset", wrap_pybind_function([](Graph& g) { g.reset(); }))
      .def("operators", &Graph::operators)
      .def("recorded_calls", &recorded_calls)
      .def_property_readonly("card", &Graph::card)
      .def_property_readonly("description", &Graph::description)
      .def_property_readonly("captured", &Graph::captured)
      .def_property_readonly("workspace_bytes", &Graph::workspace_bytes);
  py::class_<Region, std::shared_ptr<Region>>(m, "Region")
      .def(py::init<>())
      .def("record_begin", wrap_pybind_function([](Region& r) { return r.record_begin(); }))
      .def("record_abandon", wrap_pybind_function([](Region& r) { r.record_abandon(); }))
      .def("record_end",
           wrap_pybind_function([](Region& r, const std::vector<at::Tensor>& inputs,
                                   const std::vector<at::Tensor>& outputs) {
             return r.record_end(inputs, outputs);
           }),
           py::arg("inputs"), py::arg("outputs"))
      .def("run",
           wrap_pybind_function_no_gil([](Region& r, const std::vector<at::Tensor>& inputs) {
             return r.run(inputs);
           }),
           py::arg("inputs"))
      .def_property_readonly("obstacle", &Region::obstacle);
}
